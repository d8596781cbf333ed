//! Connections to the services of the instance, which all scenarios share.

use sqlx::PgPool;

use crate::{broker::Broker, config::Installation, database, tokens::TokenSigner};

/// Connections to Postgres and RabbitMQ, and the signer of access tokens.
pub(crate) struct Services {
    /// Postgres, as the owner of the database.
    pub database: PgPool,
    /// RabbitMQ.
    pub broker: Broker,
    /// Signer of access tokens.
    pub signer: TokenSigner,
}

impl Services {
    /// Connects to both servers.
    ///
    /// # Errors
    /// Where a server does not answer.
    pub(crate) async fn connect(installation: &Installation) -> anyhow::Result<Self> {
        Ok(Self {
            database: database::connect(installation).await?,
            broker: Broker::connect(&installation.amqp_url, installation.partitions).await?,
            signer: TokenSigner::new(installation.jwt_secret()?),
        })
    }
}
