//! The plan of every list endpoint, on the data that is there: whatever `GET` of the OpenAPI document has a `limit` is
//! asked as a student, an accountant and an admin, plain and by each of its filters, page after page and often enough
//! that generic plans are tried too. Postgres tells the plans to the gateway (`auto_explain`), which logs them.
//!
//! Invariant: no list scans a large table, and none reads or sorts more than a few pages.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Instant};

use anyhow::{Context as _, ensure};
use contracts::Role;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use super::Check;
use crate::{
    config::Installation,
    processes::{Layout, System},
    record::Record,
    world::World,
};

/// Rows of a table that may be scanned.
const SMALL_TABLE_ROWS: f32 = 10_000.0;
/// Rows that one node of a plan may read or sort.
const ROWS_MAX: f64 = 2_000.0;
const LIMIT: &str = "100";
/// Of one list. After five, Postgres compares its plans with the generic one.
const PAGES: usize = 8;
const FILTER: &str = "warn,sqlx::postgres::notice=info";

/// One list as it is asked.
struct Ask {
    path: String,
    /// A name and a value, or nothing.
    filter: Option<(String, String)>,
    role: Role,
}

struct Lists<'a> {
    world: &'a World,
    client: reqwest::Client,
    gateway: String,
    log: PathBuf,
    users: Vec<(Role, Uuid)>,
    /// Tables too large to be scanned.
    large: Vec<String>,
}

/// Asks all lists on a gateway of its own.
///
/// # Errors
/// Where Postgres or the gateway fails, or no plan is told.
pub async fn check(installation: &Installation, world: &World) -> anyhow::Result<Record> {
    explain(world, true).await?;
    let gateway_env = [("REGISTRAR__LOG__FILTER", FILTER), ("REGISTRAR__LOG__FORMAT", "json")];
    let gateway_env = gateway_env.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let layout = Layout { gateways: 1, workers: Vec::new(), gateway_env, workers_env: Vec::new() };
    let system = System::start(installation, &layout).await?;
    let lists = Lists {
        world,
        client: reqwest::Client::new(),
        gateway: format!("http://{}", system.gateways[0]),
        log: installation.logs.join("bench-gateway-1.log"),
        users: users(world).await?,
        large: large_tables(world).await?,
    };
    let record = lists.ask_all().await;
    system.stop().await?;
    explain(world, false).await?;
    record
}

impl Lists<'_> {
    async fn ask_all(&self) -> anyhow::Result<Record> {
        let mut record = Record::of("plans", "every list, by role and filter".to_owned());
        let (mut plans, mut slowest) = (0, BTreeMap::<String, f64>::new());
        for ask in self.asks().await? {
            let name = ask.name();
            let (found, took_ms) = self.ask(&ask).await.with_context(|| name.clone())?;
            let Some(found) = found else { continue };
            plans += found.len();
            let slow = slowest.entry(ask.path.clone()).or_default();
            *slow = slow.max(took_ms);
            let wrong: Vec<String> = found.iter().flat_map(|plan| self.faults(&plan["Plan"])).collect();
            if let Some(first) = wrong.first() {
                eprintln!("bench: {name}: {first}, in:\n{}", found[0]["Query Text"].as_str().unwrap_or_default());
            }
            record.checks.push(Check::new(&name, 0, i64::try_from(wrong.len())?));
        }
        ensure!(plans > 0, "no plan was told: loadtest/bench/run grants what auto_explain needs");
        record.push("plans", "", plans as f64);
        for (path, took_ms) in slowest {
            record.push(format!("slowest page of {path}"), "ms", took_ms);
        }
        Ok(record)
    }

    async fn asks(&self) -> anyhow::Result<Vec<Ask>> {
        let document: Value =
            self.client.get(format!("{}/openapi.json", self.gateway)).send().await?.error_for_status()?.json().await?;
        let paths = document["paths"].as_object().context("no OpenAPI document")?;
        let mut asks = Vec::new();
        for (path, item) in paths.iter().filter(|(path, _)| !path.contains('{')) {
            let names: Vec<&str> =
                item["get"]["parameters"].as_array().into_iter().flatten().filter_map(|p| p["name"].as_str()).collect();
            if !names.contains(&"limit") {
                continue;
            }
            let mut filters = vec![None];
            for name in names.into_iter().filter(|name| !matches!(*name, "limit" | "cursor")) {
                let values = self.values(path, name).await?;
                filters.extend(values.into_iter().map(|value| Some((name.to_owned(), value))));
            }
            for role in [Role::Student, Role::Accountant, Role::Admin] {
                asks.extend(filters.iter().cloned().map(|filter| Ask { path: path.clone(), filter, role }));
            }
        }
        Ok(asks)
    }

    /// Values that rows have, of the column that a filter is called after.
    async fn values(&self, path: &str, name: &str) -> anyhow::Result<Vec<String>> {
        let table = match path.rsplit('/').next().unwrap_or_default() {
            "registrations" => "student_registrations",
            other => other,
        };
        let exists: bool = sqlx::query_scalar(
            "SELECT EXISTS (SELECT FROM information_schema.columns WHERE table_name = $1 AND column_name = $2)",
        )
        .bind(table)
        .bind(name)
        .fetch_one(&self.world.database)
        .await?;
        if !exists {
            return Ok(if name == "unread" { vec!["true".to_owned()] } else { Vec::new() });
        }
        // Rare and frequent ones for a status; any key will do.
        let few = if name.ends_with("_id") { 1 } else { 12 };
        let sql = format!(
            "SELECT {name}::text FROM (SELECT {name} FROM {table} WHERE {name} IS NOT NULL LIMIT 100000) AS sampled
              GROUP BY 1 ORDER BY 1 LIMIT {few}"
        );
        Ok(sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&self.world.database).await?)
    }

    /// The plans of some pages and the slowest page's time; none where this role may not read that list.
    async fn ask(&self, ask: &Ask) -> anyhow::Result<(Option<Vec<Value>>, f64)> {
        let user = self.users.iter().find(|(role, _)| *role == ask.role).context("no such user")?.1;
        let token = self.world.mint.token(user, ask.role)?;
        let (mut plans, mut cursor, mut slowest_ms) = (Vec::new(), None, 0.0_f64);
        for _ in 0..PAGES {
            let mut url = reqwest::Url::parse(&format!("{}{}", self.gateway, ask.path))?;
            url.query_pairs_mut().append_pair("limit", LIMIT);
            for (name, value) in ask.filter.iter().chain(&cursor) {
                url.query_pairs_mut().append_pair(name, value);
            }
            let (read, began) = (fs::metadata(&self.log)?.len(), Instant::now());
            let response = self.client.get(url).bearer_auth(&token).send().await?;
            if response.status() == reqwest::StatusCode::FORBIDDEN {
                return Ok((None, 0.0));
            }
            let page: Value = response.error_for_status()?.json().await?;
            slowest_ms = slowest_ms.max(began.elapsed().as_secs_f64() * 1e3);
            let log = fs::read(&self.log)?;
            let lines = String::from_utf8_lossy(log.get(usize::try_from(read)?..).unwrap_or_default()).into_owned();
            plans.extend(lines.lines().filter_map(plan));
            // The last page is asked again and again.
            cursor = page["next_cursor"].as_str().map(|id| ("cursor".to_owned(), id.to_owned())).or(cursor);
        }
        Ok((Some(plans), slowest_ms))
    }

    /// What is wrong with a node or those below it.
    fn faults(&self, node: &Value) -> Vec<String> {
        let number = |name: &str| node[name].as_f64().unwrap_or_default();
        let (kind, table) = (node["Node Type"].as_str().unwrap_or_default(), node["Relation Name"].as_str());
        let below: Vec<&Value> = node["Plans"].as_array().into_iter().flatten().collect();
        let mut faults: Vec<String> = below.iter().flat_map(|node| self.faults(node)).collect();
        if kind == "Seq Scan" && table.is_some_and(|table| self.large.iter().any(|large| large == table)) {
            faults.push(format!("scans {}", table.unwrap_or_default()));
        }
        let read = (number("Actual Rows") + number("Rows Removed by Filter")) * number("Actual Loops").max(1.0);
        if table.is_some() && read > ROWS_MAX {
            faults.push(format!("reads {read} rows of {}", table.unwrap_or_default()));
        }
        let sorted: f64 = below.iter().filter_map(|node| node["Actual Rows"].as_f64()).sum();
        if kind.contains("Sort") && sorted > ROWS_MAX {
            faults.push(format!("sorts {sorted} rows"));
        }
        faults
    }
}

impl Ask {
    fn name(&self) -> String {
        let filter = self.filter.as_ref().map(|(name, value)| format!("?{name}={value}")).unwrap_or_default();
        format!("GET {}{filter} as {}: nothing wrong with its plans", self.path, self.role)
    }
}

/// The plan in a line of the gateway's log.
fn plan(line: &str) -> Option<Value> {
    let line: Value = serde_json::from_str(line).ok()?;
    let (_, plan) = line["message"].as_str()?.split_once("plan:\n")?;
    serde_json::from_str(plan).ok()
}

/// New connections tell the plan of each statement, or no more.
async fn explain(world: &World, on: bool) -> anyhow::Result<()> {
    let settings = [
        ("session_preload_libraries", "auto_explain"),
        ("auto_explain.log_min_duration", "0"),
        ("auto_explain.log_analyze", "on"),
        ("auto_explain.log_timing", "off"),
        ("auto_explain.log_format", "json"),
        ("auto_explain.log_level", "notice"),
    ];
    let database: String =
        sqlx::query_scalar("SELECT quote_ident(current_database())").fetch_one(&world.database).await?;
    for (name, value) in settings {
        let change = if on { format!("SET {name} = '{value}'") } else { format!("RESET {name}") };
        let sql = format!("ALTER DATABASE {database} {change}");
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&world.database)
            .await
            .with_context(|| format!("may not set {name}"))?;
    }
    Ok(())
}

/// Somebody of each role; of the students one who has much.
async fn users(world: &World) -> anyhow::Result<Vec<(Role, Uuid)>> {
    let mut users = Vec::new();
    for (role, name) in [(Role::Student, "student"), (Role::Accountant, "accountant"), (Role::Admin, "admin")] {
        let user = sqlx::query_scalar(
            "SELECT users.id
               FROM users
              WHERE role = $1 AND status = 'active'
              ORDER BY EXISTS (SELECT FROM student_registrations WHERE student_id = users.id) DESC, id
              LIMIT 1",
        );
        users.push((role, user.bind(name).fetch_one(&world.database).await.with_context(|| format!("no {name}"))?));
    }
    Ok(users)
}

async fn large_tables(world: &World) -> anyhow::Result<Vec<String>> {
    let sql = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND reltuples > $1";
    Ok(sqlx::query_scalar(sql).bind(SMALL_TABLE_ROWS).fetch_all(&world.database).await?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_found_in_a_line_of_the_log() {
        let line = r#"{"level":"INFO","message":"duration: 0.1 ms  plan:\n{\"Plan\": {\"Node Type\": \"Limit\"}}"}"#;
        assert_eq!(plan(line).expect("a plan")["Plan"]["Node Type"], "Limit");
        assert!(plan(r#"{"message":"something else"}"#).is_none());
        assert!(plan("no JSON").is_none());
    }
}
