//! The catalog of kinds and the handlers of all programs agree.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use contracts::CATALOG;
use workers::config::WorkerSettings;

/// No server is asked: making the handlers only reads the settings.
const SETTINGS: &str = r#"
    environment = "development"
    public_url = "http://127.0.0.1:9"
    metrics_listen = "127.0.0.1:9"
    database.url = "postgres://nobody@127.0.0.1/none"
    amqp.url = "amqp://127.0.0.1"
    smtp.url = "smtp://127.0.0.1:25"
    secrets.tokens = "test-secret-of-mailed-tokens-0123456789"
    secrets.jwt_hs256 = "test-secret-of-access-tokens-0123456789"
"#;

#[tokio::test]
async fn every_kind_of_the_catalog_has_exactly_one_handler() {
    let folder = std::env::temp_dir().join(format!("registrar-catalog-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let file = folder.join("settings.toml");
    std::fs::write(&file, format!("files.url = \"file://{}\"\n{SETTINGS}", folder.display())).unwrap();
    let settings = WorkerSettings::load(Some(file)).expect("the settings are complete");
    let workers = workers::registry::registry(&settings).expect("the settings suffice");
    let renderer = renderer::registry::registry(&settings).expect("the settings suffice");
    std::fs::remove_dir_all(&folder).ok();

    let mut handled: Vec<_> = workers.kinds().chain(renderer.kinds()).collect();
    handled.sort_unstable();
    let mut known: Vec<_> = CATALOG.iter().map(|kind| kind.name).collect();
    known.sort_unstable();
    assert_eq!(handled, known);
}
