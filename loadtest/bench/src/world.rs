//! What all scenarios work with.

use sqlx::PgPool;

use crate::{broker::Broker, config::Installation, database, tokens::Mint};

/// The instance, as the benchmark holds it.
pub struct World {
    /// Its Postgres, as the owner.
    pub database: PgPool,
    /// Its RabbitMQ.
    pub broker: Broker,
    /// Signs access tokens.
    pub mint: Mint,
}

impl World {
    /// Connects.
    ///
    /// # Errors
    /// Where a server does not answer.
    pub async fn connect(installation: &Installation) -> anyhow::Result<Self> {
        Ok(Self {
            database: database::connect(installation).await?,
            broker: Broker::connect(&installation.amqp_url, installation.partitions).await?,
            mint: Mint::new(installation.jwt_secret()?),
        })
    }
}
