//! Query plans of every list endpoint, on the data that is there. Each `GET` of the OpenAPI document with a `limit` is
//! requested as a student, an accountant and an admin, without a filter and with each, page by page and often enough
//! that generic plans are used too. Postgres sends the plans to the gateway (`auto_explain`), which logs them.
//!
//! Invariant: no list scans a large table, and none reads or sorts more rows than a few pages have.

use std::{collections::BTreeMap, fs, path::PathBuf, time::Instant};

use anyhow::{Context as _, ensure};
use contracts::Role;
use serde_json::Value;
use sqlx::AssertSqlSafe;
use uuid::Uuid;

use crate::{
    config::Installation,
    processes::{Layout, RunningSystem},
    record::{Check, Record},
    services::Services,
};

/// Estimated rows from which on a table may not be scanned.
const SMALL_TABLE_ROWS: f32 = 10_000.0;
/// Limit of the rows that one plan node reads or sorts.
const ROWS_MAX: f64 = 2_000.0;
const LIMIT: &str = "100";
/// Pages requested of each list. From the sixth execution on, Postgres considers a generic plan.
const PAGES: usize = 8;
const FILTER: &str = "warn,sqlx::postgres::notice=info";

/// A list endpoint with a filter and a role.
struct ListRequest {
    path: String,
    /// Name and value of a filter; none: no filter.
    filter: Option<(String, String)>,
    role: Role,
}

struct Lists<'a> {
    services: &'a Services,
    client: reqwest::Client,
    gateway: String,
    log: PathBuf,
    users: Vec<(Role, Uuid)>,
    /// Tables that may not be scanned.
    large: Vec<String>,
}

/// Requests all lists from a gateway of its own and checks their plans.
///
/// # Errors
/// Where Postgres or the gateway fails, or the log has no plan.
pub(crate) async fn check(installation: &Installation, services: &Services) -> anyhow::Result<Record> {
    explain(services, true).await?;
    let gateway_env = [("REGISTRAR__LOG__FILTER", FILTER), ("REGISTRAR__LOG__FORMAT", "json")];
    let gateway_env = gateway_env.map(|(key, value)| (key.to_owned(), value.to_owned())).to_vec();
    let layout = Layout { gateways: 1, workers: Vec::new(), gateway_env, workers_env: Vec::new() };
    let system = RunningSystem::start(installation, &layout).await?;
    let lists = Lists {
        services,
        client: reqwest::Client::new(),
        gateway: format!("http://{}", system.gateways[0]),
        log: installation.logs.join("bench-gateway-1.log"),
        users: users(services).await?,
        large: large_tables(services).await?,
    };
    let record = lists.check_all().await;
    system.stop().await?;
    explain(services, false).await?;
    record
}

impl Lists<'_> {
    async fn check_all(&self) -> anyhow::Result<Record> {
        let mut record = Record::of("plans", "every list, by role and filter".to_owned());
        let (mut plans, mut slowest) = (0, BTreeMap::<String, f64>::new());
        for list in self.requests().await? {
            let name = list.name();
            let (found, took_ms) = self.plans_of(&list).await.with_context(|| name.clone())?;
            let Some(found) = found else { continue };
            plans += found.len();
            let slow = slowest.entry(list.path.clone()).or_default();
            *slow = slow.max(took_ms);
            let wrong: Vec<String> = found.iter().flat_map(|plan| self.faults(&plan["Plan"])).collect();
            if let Some(first) = wrong.first() {
                eprintln!("bench: {name}: {first}, in:\n{}", found[0]["Query Text"].as_str().unwrap_or_default());
            }
            record.checks.push(Check::new(&name, 0, i64::try_from(wrong.len())?));
        }
        ensure!(plans > 0, "no plan was logged: loadtest/bench/run grants what auto_explain needs");
        record.push("plans", "", plans as f64);
        for (path, took_ms) in slowest {
            record.push(format!("slowest page of {path}"), "ms", took_ms);
        }
        Ok(record)
    }

    async fn requests(&self) -> anyhow::Result<Vec<ListRequest>> {
        let document: Value =
            self.client.get(format!("{}/openapi.json", self.gateway)).send().await?.error_for_status()?.json().await?;
        let paths = document["paths"].as_object().context("no OpenAPI document")?;
        let mut requests = Vec::new();
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
                requests.extend(filters.iter().cloned().map(|filter| ListRequest { path: path.clone(), filter, role }));
            }
        }
        Ok(requests)
    }

    /// Returns values of the column that a filter is named after.
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
        .fetch_one(&self.services.database)
        .await?;
        if !exists {
            return Ok(if name == "unread" { vec!["true".to_owned()] } else { Vec::new() });
        }
        // Several values for a status, since rare and frequent ones get different plans; one for an id.
        let few = if name.ends_with("_id") { 1 } else { 12 };
        let sql = format!(
            "SELECT {name}::text FROM (SELECT {name} FROM {table} WHERE {name} IS NOT NULL LIMIT 100000) AS sampled
              GROUP BY 1 ORDER BY 1 LIMIT {few}"
        );
        Ok(sqlx::query_scalar(AssertSqlSafe(sql)).fetch_all(&self.services.database).await?)
    }

    /// Returns the plans of several pages and the time of the slowest, milliseconds; no plans where this role may not
    /// read the list.
    async fn plans_of(&self, list: &ListRequest) -> anyhow::Result<(Option<Vec<Value>>, f64)> {
        let user = self.users.iter().find(|(role, _)| *role == list.role).context("no user of this role")?.1;
        let token = self.services.signer.token(user, list.role)?;
        let (mut plans, mut cursor, mut slowest_ms) = (Vec::new(), None, 0.0_f64);
        for _ in 0..PAGES {
            let mut url = reqwest::Url::parse(&format!("{}{}", self.gateway, list.path))?;
            url.query_pairs_mut().append_pair("limit", LIMIT);
            for (name, value) in list.filter.iter().chain(&cursor) {
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
            // The last page is requested repeatedly.
            cursor = page["next_cursor"].as_str().map(|id| ("cursor".to_owned(), id.to_owned())).or(cursor);
        }
        Ok((Some(plans), slowest_ms))
    }

    /// Returns the faults of a plan node and of those below it.
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

impl ListRequest {
    fn name(&self) -> String {
        let filter = self.filter.as_ref().map(|(name, value)| format!("?{name}={value}")).unwrap_or_default();
        format!("GET {}{filter} as {}: no fault in its plans", self.path, self.role)
    }
}

/// Returns the plan in a line of the gateway's log.
fn plan(line: &str) -> Option<Value> {
    let line: Value = serde_json::from_str(line).ok()?;
    let (_, plan) = line["message"].as_str()?.split_once("plan:\n")?;
    serde_json::from_str(plan).ok()
}

/// Turns the logging of plans on or off for new connections to the database.
async fn explain(services: &Services, on: bool) -> anyhow::Result<()> {
    let settings = [
        ("session_preload_libraries", "auto_explain"),
        ("auto_explain.log_min_duration", "0"),
        ("auto_explain.log_analyze", "on"),
        ("auto_explain.log_timing", "off"),
        ("auto_explain.log_format", "json"),
        ("auto_explain.log_level", "notice"),
    ];
    let database: String =
        sqlx::query_scalar("SELECT quote_ident(current_database())").fetch_one(&services.database).await?;
    for (name, value) in settings {
        let change = if on { format!("SET {name} = '{value}'") } else { format!("RESET {name}") };
        let sql = format!("ALTER DATABASE {database} {change}");
        sqlx::raw_sql(AssertSqlSafe(sql))
            .execute(&services.database)
            .await
            .with_context(|| format!("may not set {name}"))?;
    }
    Ok(())
}

/// Returns a user of each role; the student has registrations if any student has.
async fn users(services: &Services) -> anyhow::Result<Vec<(Role, Uuid)>> {
    let mut users = Vec::new();
    for (role, name) in [(Role::Student, "student"), (Role::Accountant, "accountant"), (Role::Admin, "admin")] {
        let user = sqlx::query_scalar(
            "SELECT users.id
               FROM users
              WHERE role = $1 AND status = 'active'
              ORDER BY EXISTS (SELECT FROM student_registrations WHERE student_id = users.id) DESC, id
              LIMIT 1",
        );
        users.push((role, user.bind(name).fetch_one(&services.database).await.with_context(|| format!("no {name}"))?));
    }
    Ok(users)
}

async fn large_tables(services: &Services) -> anyhow::Result<Vec<String>> {
    let sql = "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND reltuples > $1";
    Ok(sqlx::query_scalar(sql).bind(SMALL_TABLE_ROWS).fetch_all(&services.database).await?)
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
