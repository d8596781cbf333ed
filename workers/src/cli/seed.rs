//! `workers seed`: writes the sample data of developers, the demo and the load tests. The institute has fixed ids and is
//! written once, however often this runs. Refused in production.

mod demo_course_batch;
mod load;

use anyhow::{Context as _, ensure};
use contracts::Role;
use rust_decimal::Decimal;
use sqlx::PgPool;
use uuid::Uuid;

use super::create_user::hash_password;
use crate::{
    config::{WorkerEnvironment, WorkerSettings},
    database,
};

/// The fee before tax, in the institute's currency.
const BASE_FEE: Decimal = Decimal::from_parts(1_000_000, 0, 0, false, 2);
/// The tax rate in per cent.
const TAX_RATE: Decimal = Decimal::from_parts(1_800, 0, 0, false, 2);

/// The sample data beside the institute.
#[derive(Debug, clap::Args)]
pub struct SeedArgs {
    /// bcrypt's cost for the sample users; each step doubles the work.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u32).range(4..=16))]
    pub bcrypt_cost: u32,

    /// Also create a fresh open course batch of this code with two seats and a waitlist of five, and print only it, as JSON.
    #[arg(long, value_name = "CODE", conflicts_with = "load")]
    pub demo_batch: Option<String>,

    /// Also create N students, each with a seat held, and print only them, a JSON object per line, for k6.
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(1..=200_000))]
    pub load: Option<i32>,

    /// Open course batches to spread the students of `--load` over; each has twice the seats that they take.
    #[arg(long, value_name = "M", default_value_t = 4, requires = "load", value_parser = clap::value_parser!(i32).range(1..=1_000))]
    pub batches: i32,

    /// The seats of each course batch of `--load` in all, to have them run out.
    #[arg(long, requires = "load", value_parser = clap::value_parser!(i32).range(1..=1_000_000))]
    pub seats: Option<i32>,

    /// The places on the waitlist of each course batch of `--load`.
    #[arg(long, value_name = "PLACES", default_value_t = 1_000, requires = "load", value_parser = clap::value_parser!(i32).range(0..=1_000_000))]
    pub waitlist: i32,

    /// Leave the students of `--load` without a seat, for them to ask for one.
    #[arg(long, requires = "load")]
    pub unseated: bool,
}

struct SampleUser {
    id: Uuid,
    email: &'static str,
    password: &'static str,
    role: Role,
    full_name: &'static str,
}

const fn fixed_id(n: u128) -> Uuid {
    Uuid::from_u128(0x0198_0000_0000_7000_8000_0000_0000_0000 | n)
}

const ADMIN: Uuid = fixed_id(0x101);
const TEACHER: Uuid = fixed_id(0x104);
const RUST_COURSE: Uuid = fixed_id(0x201);
const DATA_COURSE: Uuid = fixed_id(0x202);

/// The users who can sign in after `seed`, with known passwords: never in production.
const USERS: [SampleUser; 4] = [
    SampleUser {
        id: ADMIN,
        email: "admin@example.org",
        password: "development-admin",
        role: Role::Admin,
        full_name: "Anita Desai",
    },
    SampleUser {
        id: fixed_id(0x102),
        email: "accountant@example.org",
        password: "development-accountant",
        role: Role::Accountant,
        full_name: "Ravi Kumar",
    },
    SampleUser {
        id: fixed_id(0x103),
        email: "accountant2@example.org",
        password: "development-accountant2",
        role: Role::Accountant,
        full_name: "Meera Nair",
    },
    SampleUser {
        id: TEACHER,
        email: "teacher@example.org",
        password: "development-teacher",
        role: Role::Teacher,
        full_name: "Joseph Mathew",
    },
];

/// Writes the institute where it is missing, then the data that the options request.
///
/// # Errors
/// The environment is production, or the database refuses; it needs its owner and the newest schema.
pub async fn run(args: SeedArgs, settings: WorkerSettings) -> anyhow::Result<()> {
    ensure!(
        settings.environment == WorkerEnvironment::Development,
        "sample data with known passwords is for development only (environment = \"development\" is not set)"
    );
    let database = database::pool(&settings.database, "workers seed").context("database.url")?;
    let currency = &settings.institute.currency;
    institute(&database, currency, args.bcrypt_cost)
        .await
        .context("the sample data could not be written; database.url must be the owner's, and the schema the newest")?;
    if let Some(code) = &args.demo_batch {
        return demo_course_batch::run(&database, code).await;
    }
    if let Some(students) = args.load {
        let plan = load::LoadPlan {
            students,
            course_batches: args.batches,
            seats: args.seats,
            waitlist: args.waitlist,
            seated: !args.unseated,
        };
        return load::run(&database, &plan).await;
    }
    println!("The sample institute is there. Who can sign in:");
    for user in &USERS {
        println!("  {:<24} {:<24} {}", user.email, user.password, user.role);
    }
    println!("Two courses, four open batches; 10000.00 {currency} and 18 % tax each.");
    Ok(())
}

async fn institute(database: &PgPool, currency: &str, bcrypt_cost: u32) -> anyhow::Result<()> {
    users(database, bcrypt_cost).await?;
    courses(database, currency).await?;
    course_batches(database).await?;
    Ok(())
}

async fn users(database: &PgPool, bcrypt_cost: u32) -> anyhow::Result<()> {
    let there = sqlx::query_scalar!("SELECT id FROM users WHERE id = ANY($1)", &USERS.map(|user| user.id))
        .fetch_all(database)
        .await?;
    // Hashing is slow, so only missing users are hashed.
    let missing: Vec<&SampleUser> = USERS.iter().filter(|user| !there.contains(&user.id)).collect();
    let hashes = missing
        .iter()
        .map(|user| hash_password(&user.password.into(), bcrypt_cost))
        .collect::<anyhow::Result<Vec<_>>>()?;
    let column = |of: fn(&SampleUser) -> &str| missing.iter().map(|user| of(user).to_owned()).collect::<Vec<_>>();
    sqlx::query!(
        r#"
        WITH wanted AS (
            SELECT *
              FROM UNNEST($1::uuid[], $2::text[], $3::text[], $4::text[], $5::text[])
                AS wanted (id, email, password_hash, role, full_name)
        ), created AS (
            INSERT INTO users (id, email, password_hash, role, status, email_verified_at)
            SELECT id, email::citext, password_hash, role, 'active', now() FROM wanted
                ON CONFLICT DO NOTHING
            RETURNING id
        )
        INSERT INTO user_profiles (id, user_id, full_name, country, timezone)
        SELECT id, id, full_name, 'IN', 'Asia/Kolkata' FROM wanted JOIN created USING (id)
            ON CONFLICT DO NOTHING
        "#,
        &missing.iter().map(|user| user.id).collect::<Vec<_>>(),
        &column(|user| user.email),
        &hashes,
        &column(|user| user.role.name()),
        &column(|user| user.full_name),
    )
    .execute(database)
    .await?;
    Ok(())
}

async fn courses(database: &PgPool, currency: &str) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO courses (id, code, slug, title, description, category, duration_weeks, base_fee, currency, tax_rate,
                             status, created_by)
        VALUES ($1, 'RUST-101', 'systems-programming-in-rust', 'Systems Programming in Rust',
                'Ownership, concurrency and networking, with a project each fortnight.', 'Programming', 12,
                $3, $5, $4, 'published', $6),
               ($2, 'DATA-201', 'data-engineering', 'Data Engineering',
                'Modelling, queues and batch processing on PostgreSQL and RabbitMQ.', 'Data', 16,
                $3, $5, $4, 'published', $6)
            ON CONFLICT DO NOTHING
        "#,
        RUST_COURSE,
        DATA_COURSE,
        BASE_FEE,
        TAX_RATE,
        currency,
        ADMIN,
    )
    .execute(database)
    .await?;
    Ok(())
}

/// Writes four course batches: a plain one, one online, one that a deposit confirms, and one that an admin reviews.
async fn course_batches(database: &PgPool) -> sqlx::Result<()> {
    sqlx::query!(
        r#"
        INSERT INTO batches (id, course_id, code, name, instructor_id, mode, capacity, waitlist_capacity, start_date,
                             end_date, opens_at, closes_at, confirm_minutes, hold_minutes, fee, deposit, requires_review,
                             schedule, status)
        SELECT id, course_id, code, name, $6, mode, capacity, waitlist_capacity, current_date + 400, current_date + 490,
               now() - interval '1 day', now() + interval '1 year', 60, 2880, $7, deposit, requires_review,
               '{"days": ["mon", "wed", "fri"], "from": "09:00", "to": "11:00"}', 'open'
          FROM (VALUES ($1::uuid, $5::uuid, 'RUST-MORNING', 'Rust, mornings', 'classroom', 40, 20, NULL::numeric, false),
                       ($2, $5, 'RUST-ONLINE', 'Rust, online', 'online', 200, 100, NULL, false),
                       ($3, $8, 'DATA-EVENING', 'Data, evenings', 'hybrid', 60, 20, 3000, false),
                       ($4, $8, 'DATA-RESEARCH', 'Data, research track', 'classroom', 15, 10, NULL, true))
            AS wanted (id, course_id, code, name, mode, capacity, waitlist_capacity, deposit, requires_review)
            ON CONFLICT DO NOTHING
        "#,
        fixed_id(0x301),
        fixed_id(0x302),
        fixed_id(0x303),
        fixed_id(0x304),
        RUST_COURSE,
        TEACHER,
        BASE_FEE,
        DATA_COURSE,
    )
    .execute(database)
    .await?;
    Ok(())
}
