//! The sample file is the documentation of every setting: it must stand alone, and agree with the defaults.

use figment::{
    Figment,
    providers::{Format, Toml},
    value::{Dict, Value},
};

use super::{DEFAULTS, WorkerEnvironment, WorkerSettings};

const SAMPLE: &str = include_str!("../../../deploy/workers.sample.toml");

fn sample_with(toml: &str) -> WorkerSettings {
    Figment::from(Toml::string(SAMPLE)).merge(Toml::string(toml)).extract().expect("the sample with a change")
}

fn assert_within(path: &str, part: &Dict, whole: &Dict) {
    for (key, value) in part {
        let path = format!("{path}{key}");
        match (value, whole.get(key)) {
            (Value::Dict(_, part), Some(Value::Dict(_, whole))) => assert_within(&format!("{path}."), part, whole),
            (value, Some(found)) => assert_eq!(value, found, "{path} differs from its default"),
            (_, None) => panic!("{path} is not in the sample"),
        }
    }
}

#[test]
fn the_sample_names_every_setting_and_shows_the_defaults() {
    // Without the defaults: a setting that the sample forgets would be missing.
    sample_with("").check().expect("the sample is consistent");
    assert!(SAMPLE.contains("# templates_dir ="), "the only optional setting is shown commented out");
    let mut defaults: Dict = Figment::from(Toml::string(DEFAULTS)).extract().expect("the defaults");
    defaults.remove("environment");
    assert_within("", &defaults, &Figment::from(Toml::string(SAMPLE)).extract().expect("the sample"));
}

#[test]
fn production_refuses_what_is_development_s() {
    let settings = sample_with("environment = 'production'");
    assert_eq!(settings.environment, WorkerEnvironment::Production);
    let errors = settings.check().expect_err("the sample's secrets are no secrets").to_string();
    for key in ["secrets.tokens", "secrets.jwt_hs256", "institute.legal_name"] {
        assert!(errors.contains(key), "{key} in {errors}");
    }
}

#[test]
fn relations_are_asserted_by_key() {
    for (toml, key) in [
        ("runtime.consumers = 9", "database.pool_max"),
        ("runtime.follow_up_consumers = 9", "database.pool_max"),
        ("runtime.follow_up_consumers = 0", "runtime.follow_up_consumers"),
        ("runtime.drain_ms = 25000", "runtime.drain_ms"),
        ("database.lock_timeout_ms = 5000", "database.lock_timeout_ms"),
        ("institute.financial_year_start_month = 13", "institute.financial_year_start_month"),
        ("institute.number_format = '{prefix}-{seq}'", "institute.number_format"),
        ("institute.credit_note_prefix = 'IN'", "institute.credit_note_prefix"),
        ("institute.rounding_step = '0.001'", "institute.rounding_step"),
        ("files.url = 's3://bucket'", "files.url"),
        ("smtp.from = 'nobody'", "smtp.from"),
        ("runtime.batch_max = 0", "runtime.batch_max"),
    ] {
        let errors = sample_with(toml).check().expect_err(toml).to_string();
        assert!(errors.contains(key), "{key} in {errors}");
    }
}

#[test]
fn unknown_keys_are_refused_and_secrets_redacted() {
    let unknown =
        Figment::from(Toml::string(SAMPLE)).merge(Toml::string("runtime.prefetsh = 1")).extract::<WorkerSettings>();
    assert!(unknown.expect_err("a typing error").to_string().contains("prefetsh"));
    let debug = format!("{:?}", sample_with("database.url = 'postgres://u:hunter2@h/d'"));
    assert!(!debug.contains("hunter2") && !debug.contains("development-only"), "{debug}");
}
