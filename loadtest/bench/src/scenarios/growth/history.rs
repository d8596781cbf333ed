//! The rows of years of use, inserted within minutes: by `generate_series` inside Postgres, without foreign key
//! checks, with indexes built afterwards. Two connections share the work, one for each of two cores.
//!
//! Keys are as the application makes them: time-ordered for rows, and computable from table and row number, so that
//! other rows can refer to them; random for operations.

use std::str::FromStr as _;

use anyhow::Context as _;
use sqlx::{AssertSqlSafe, ConnectOptions as _, Connection as _, PgConnection, postgres::PgConnectOptions};

use crate::config::Installation;

/// Days that pruning keeps, of the [`DAYS`] over which operations are spread: a twentieth expires.
pub(crate) const KEEP_DAYS: i32 = 19;
const DAYS: i32 = 20;

const OPERATIONS: usize = 10_000_000;
const REGISTRATIONS: usize = 5_000_000;
const STUDENTS: usize = 1_000_000;
const COURSE_BATCHES: usize = 500;

/// Numbers of rows.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sizes {
    /// Settled operations.
    pub operations: usize,
    /// Registrations, five for each student.
    pub registrations: usize,
    students: usize,
}

impl Sizes {
    /// The full sizes, each passed through `scaled`, at least 1,000.
    pub(crate) fn of(scaled: impl Fn(usize) -> usize) -> Self {
        let [operations, registrations, students] =
            [OPERATIONS, REGISTRATIONS, STUDENTS].map(|size| scaled(size).max(1_000));
        Self { operations, registrations, students }
    }
}

/// A table to fill: the number of rows and the INSERT that takes it as `$1`.
struct Load {
    table: &'static str,
    rows: usize,
    insert: &'static str,
}

/// Fills the database of the instance, vacuums, analyses and checkpoints it.
///
/// # Errors
/// Where Postgres refuses.
pub(crate) async fn fill(installation: &Installation, sizes: &Sizes) -> anyhow::Result<()> {
    let Sizes { operations, registrations, students } = *sizes;
    let (mut left, mut right) = (connect(installation, sizes).await?, connect(installation, sizes).await?);
    execute(&mut left, BATCHES_SQL).await?;
    let history = [
        Load { table: "operations", rows: operations, insert: OPERATIONS_SQL },
        Load { table: "notifications", rows: registrations, insert: NOTIFICATIONS_SQL },
    ];
    let people = [
        Load { table: "users", rows: students, insert: USERS_SQL },
        Load { table: "user_profiles", rows: students, insert: PROFILES_SQL },
        Load { table: "student_registrations", rows: registrations, insert: REGISTRATIONS_SQL },
        Load { table: "payments", rows: registrations, insert: PAYMENTS_SQL },
        Load { table: "enrollments", rows: registrations, insert: ENROLLMENTS_SQL },
        Load { table: "invoices", rows: registrations, insert: INVOICES_SQL },
    ];
    futures::future::try_join(load_all(&mut left, &history), load_all(&mut right, &people)).await?;
    execute(&mut left, COUNTERS_SQL).await?;
    for statement in ["VACUUM (ANALYZE)", "CHECKPOINT"] {
        execute(&mut left, statement).await?;
    }
    left.close().await?;
    right.close().await?;
    Ok(())
}

async fn connect(installation: &Installation, sizes: &Sizes) -> anyhow::Result<PgConnection> {
    let mut connection = PgConnectOptions::from_str(&installation.database_url)?.connect().await?;
    execute(&mut connection, SESSION_SQL).await?;
    for (name, value) in
        [("students", sizes.students), ("batches", COURSE_BATCHES), ("rows", sizes.operations), ("days", DAYS as usize)]
    {
        execute(&mut connection, &format!("SET bench.{name} = '{value}'")).await?;
    }
    Ok(connection)
}

async fn load_all(connection: &mut PgConnection, loads: &[Load]) -> anyhow::Result<()> {
    for Load { table, rows, insert } in loads {
        let dropped = drop_indexes(connection, table).await?;
        sqlx::query(*insert).bind(i64::try_from(*rows)?).execute(&mut *connection).await.context(*table)?;
        for definition in dropped {
            execute(connection, &definition).await?;
        }
        eprintln!("bench: {table} filled");
    }
    Ok(())
}

/// Drops the indexes that no foreign key needs, except primary keys, whose order is that of the rows (those of
/// `operations` are random and dropped too); returns the statements that create them again.
async fn drop_indexes(connection: &mut PgConnection, table: &'static str) -> anyhow::Result<Vec<String>> {
    let found: Vec<(String, String)> = sqlx::query_as(
        "SELECT CASE WHEN own.oid IS NULL THEN format('DROP INDEX %I', class.relname)
                     ELSE format('ALTER TABLE %I DROP CONSTRAINT %I', $1::text, own.conname) END,
                CASE WHEN own.oid IS NULL THEN pg_get_indexdef(class.oid)
                     ELSE format('ALTER TABLE %I ADD CONSTRAINT %I %s', $1::text, own.conname, pg_get_constraintdef(own.oid)) END
           FROM pg_index AS index
           JOIN pg_class AS class ON class.oid = index.indexrelid
           LEFT JOIN pg_constraint AS own ON own.conindid = class.oid AND own.contype IN ('p', 'u')
          WHERE index.indrelid = $1::text::regclass
            AND (NOT index.indisprimary OR $1::text = 'operations')
            AND NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = class.oid AND contype = 'f')",
    )
    .bind(table)
    .fetch_all(&mut *connection)
    .await?;
    let mut definitions = Vec::new();
    for (drop, definition) in found {
        execute(connection, &drop).await?;
        definitions.push(definition);
    }
    Ok(definitions)
}

async fn execute(connection: &mut PgConnection, sql: &str) -> anyhow::Result<()> {
    sqlx::raw_sql(AssertSqlSafe(sql)).execute(connection).await.with_context(|| sql.to_owned())?;
    Ok(())
}

/// Session settings and `key(table, n)`, a UUIDv7 of 48 bits of time, version and variant, the table and the row
/// number: keys of one table are in the order of their numbers. The times lie in the past.
const SESSION_SQL: &str = "
    SET session_replication_role = replica;
    SET maintenance_work_mem = '512MB';
    CREATE FUNCTION pg_temp.key(tab int, n bigint) RETURNS uuid LANGUAGE sql IMMUTABLE AS
    $$ SELECT (lpad(to_hex(1735689600000 + n), 12, '0') || '7000' || '8' || lpad(to_hex(tab), 3, '0')
               || lpad(to_hex(n), 12, '0'))::uuid $$;
    CREATE FUNCTION pg_temp.sized(name text) RETURNS bigint LANGUAGE sql STABLE AS
    $$ SELECT current_setting('bench.' || name)::bigint $$;";

const BATCHES_SQL: &str = "
    INSERT INTO batches (id, course_id, code, name, mode, capacity, waitlist_capacity, start_date, end_date, opens_at,
                         closes_at, confirm_minutes, hold_minutes, fee, status)
    SELECT pg_temp.key(1, n), course.id, 'PAST-' || n, 'Past batch ' || n, 'online', 10000000, 10000000, current_date - 30,
           current_date + 60, now() - interval '60 days', now() - interval '31 days', 1440, 1440, course.base_fee, 'closed'
      FROM generate_series(0, pg_temp.sized('batches') - 1) AS n, courses AS course
     WHERE course.code = 'RUST-101'";

const USERS_SQL: &str = "
    INSERT INTO users (id, email, role, status, email_verified_at, created_at)
    SELECT pg_temp.key(2, n), ('past-' || n || '@load.example.org')::citext, 'student', 'active', now(), now() - interval '60 days'
      FROM generate_series(0, $1::bigint - 1) AS n";

const PROFILES_SQL: &str = "
    INSERT INTO user_profiles (id, user_id, full_name)
    SELECT pg_temp.key(2, n), pg_temp.key(2, n), 'Past Student ' || n
      FROM generate_series(0, $1::bigint - 1) AS n";

/// Of 20 registrations 12 are confirmed, 3 waitlisted, 3 expired and 2 hold a seat. A student is in a different course
/// batch each time.
const REGISTRATIONS_SQL: &str = "
    INSERT INTO student_registrations (id, request_no, student_id, batch_id, status, fee, tax_rate, tax, amount_due,
                                       amount_paid, currency, hold_expires_at, waitlist_seq, operation_id, created_at)
    SELECT pg_temp.key(3, n), 'P-' || lpad(n::text, 10, '0'), pg_temp.key(2, n % students),
           pg_temp.key(1, (n % students + n / students * 17) % batches), status, 10000, 18, 1800, 11800,
           CASE status WHEN 'confirmed' THEN 11800 ELSE 0 END, 'INR',
           CASE status WHEN 'seat_held' THEN now() + interval '30 days' END,
           CASE status WHEN 'waitlisted' THEN n + 1 END, gen_random_uuid(), now() - interval '50 days'
      FROM (SELECT n, pg_temp.sized('students') AS students, pg_temp.sized('batches') AS batches,
                   CASE WHEN n % 20 < 12 THEN 'confirmed' WHEN n % 20 < 15 THEN 'waitlisted'
                        WHEN n % 20 < 18 THEN 'expired' ELSE 'seat_held' END AS status
              FROM generate_series(0, $1::bigint - 1) AS n) AS wanted";

/// Payments of the confirmed registrations; one in a hundred is not decided yet.
const PAYMENTS_SQL: &str = "
    INSERT INTO payments (id, registration_id, student_id, method, transaction_id, transaction_ref, amount, currency, status,
                          reviewed_by, reviewed_at, operation_id, created_at)
    SELECT pg_temp.key(4, n), pg_temp.key(3, n), pg_temp.key(2, n % pg_temp.sized('students')), 'bank_transfer', 'PAST-' || n,
           'PAST' || n, 11800, 'INR', CASE WHEN n % 100 = 0 THEN 'submitted' ELSE 'approved' END,
           CASE WHEN n % 100 <> 0 THEN accountant.id END, CASE WHEN n % 100 <> 0 THEN now() - interval '40 days' END,
           gen_random_uuid(), now() - interval '45 days'
      FROM generate_series(0, $1::bigint - 1) AS n,
           (SELECT id FROM users WHERE role = 'accountant' ORDER BY id LIMIT 1) AS accountant
     WHERE n % 20 < 12";

const ENROLLMENTS_SQL: &str = "
    INSERT INTO enrollments (id, student_id, batch_id, registration_id, status, operation_id)
    SELECT pg_temp.key(5, n), pg_temp.key(2, n % students),
           pg_temp.key(1, (n % students + n / students * 17) % batches), pg_temp.key(3, n), 'active', gen_random_uuid()
      FROM (SELECT n, pg_temp.sized('students') AS students, pg_temp.sized('batches') AS batches
              FROM generate_series(0, $1::bigint - 1) AS n WHERE n % 20 < 12) AS wanted";

/// Invoices of a financial year long ago, so that their series does not take part in the benchmark.
const INVOICES_SQL: &str = r#"
    WITH series AS (INSERT INTO invoice_series (id, kind, financial_year, prefix, next_seq)
                    VALUES (pg_temp.key(6, 0), 'invoice', '2001-02', 'PAST', $1::bigint + 1) RETURNING id)
    INSERT INTO invoices (id, kind, series_id, seq, number, payment_id, registration_id, student_id, issue_date, supplier,
                          recipient, currency, subtotal, tax, total, issued_at, operation_id)
    SELECT pg_temp.key(7, n), 'invoice', series.id, n + 1, 'PAST-' || n, pg_temp.key(4, n), pg_temp.key(3, n),
           pg_temp.key(2, n % pg_temp.sized('students')), current_date - 40, '{"name": "Sample Institute"}',
           '{"name": "Past Student"}', 'INR', 10000, 1800, 11800, now() - interval '40 days', gen_random_uuid()
      FROM generate_series(0, $1::bigint - 1) AS n, series
     WHERE n % 20 < 12"#;

const NOTIFICATIONS_SQL: &str = "
    INSERT INTO notifications (id, user_id, type, title, body, data, read_at, dedupe_key, operation_id, created_at)
    SELECT pg_temp.key(8, n), pg_temp.key(2, n % pg_temp.sized('students')), 'registration_received',
           'We have your registration', 'Request P-' || n || ', 11800.00 INR.', jsonb_build_object('request_no', 'P-' || n),
           CASE WHEN n % 4 > 0 THEN now() END, 'registration_received:' || pg_temp.key(3, n), gen_random_uuid(),
           now() - interval '50 days' + n * interval '1 millisecond'
      FROM generate_series(0, $1::bigint - 1) AS n";

/// Operations settled evenly over the days, in groups of 256 with the same time.
const OPERATIONS_SQL: &str = "
    INSERT INTO operations (id, kind, principal, fingerprint, state, outcome, subject, accepted_at, settled_at)
    SELECT gen_random_uuid(), CASE WHEN n % 2 = 0 THEN 'registration.submit.v1' ELSE 'payment.submit.v1' END,
           'student:' || student, uuid_send(student), 'succeeded',
           jsonb_build_object('result', jsonb_build_object('registration_id', pg_temp.key(3, n), 'status', 'seat_held',
                                                           'amount', '11800.00', 'currency', 'INR'),
                              'memo', jsonb_build_object('notice', jsonb_build_object('user_id', student,
                                                         'name', 'Past Student', 'course', 'Systems Programming in Rust',
                                                         'email', 'past@load.example.org', 'request_no', 'P-' || n))),
           student::text, at - interval '50 milliseconds', at
      FROM (SELECT n, pg_temp.key(2, (n * 7919) % pg_temp.sized('students')) AS student,
                   now() - make_interval(days => pg_temp.sized('days')::int)
                         + n / 256 * 256 * (make_interval(days => pg_temp.sized('days')::int) / pg_temp.sized('rows')) AS at
              FROM generate_series(0, $1::bigint - 1) AS n) AS wanted";

const COUNTERS_SQL: &str = "
    UPDATE batches
       SET seats_taken = taken, waitlist_taken = waiting, next_waitlist_seq = next
      FROM (SELECT batch_id, count(*) FILTER (WHERE status IN ('seat_held', 'confirmed')) AS taken,
                   count(*) FILTER (WHERE status = 'waitlisted') AS waiting, coalesce(max(waitlist_seq), 0) + 1 AS next
              FROM student_registrations GROUP BY batch_id) AS rows
     WHERE batches.id = rows.batch_id AND batches.code LIKE 'PAST-%'";
