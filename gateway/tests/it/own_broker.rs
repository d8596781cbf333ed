//! A broker of a test's own, to be killed and choked, through the scripts that start every other.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};
use url::Url;

/// RabbitMQ 3.10 writes down the names of new quorum queues lazily: killed sooner, it forgets them.
pub const QUEUES_REMEMBERED_AFTER: Duration = Duration::from_millis(2_500);

/// Ended by its drop.
pub struct OwnBroker {
    instance: &'static str,
}

impl OwnBroker {
    /// Starts it, empty. Instances of different names run side by side.
    pub async fn start(instance: &'static str) -> Self {
        let broker = Self { instance };
        broker.services(&["up", "rabbitmq"]).await;
        // `down` keeps the data, and a run that failed leaves messages.
        broker.manage(Method::DELETE, "/api/vhosts/registrar", Value::Null).await;
        broker.manage(Method::PUT, "/api/vhosts/registrar", json!({})).await;
        let all = json!({ "configure": ".*", "write": ".*", "read": ".*" });
        broker.manage(Method::PUT, "/api/permissions/registrar/registrar", all).await;
        broker
    }

    pub fn url(&self) -> String {
        self.setting("AMQP_URL")
    }

    pub async fn kill_and_restart(&self) {
        self.services(&["kill", "rabbitmq"]).await;
        self.services(&["up", "rabbitmq"]).await;
    }

    /// `rabbitmqctl`; answers what it prints.
    pub async fn ctl(&self, arguments: &[&str]) -> String {
        self.services(&[&["ctl"], arguments].concat()).await
    }

    async fn services(&self, arguments: &[&str]) -> String {
        let mut command = self.script("services");
        command.args(arguments);
        tokio::task::spawn_blocking(move || run(&mut command)).await.expect("the script ran")
    }

    fn setting(&self, name: &str) -> String {
        let settings = run(&mut self.script("env"));
        let line = settings.lines().find_map(|line| line.strip_prefix(&format!("export {name}=")));
        line.expect("the instance is up").trim_matches(['\'', '"']).to_owned()
    }

    async fn manage(&self, method: Method, path: &str, body: Value) {
        let mut url: Url = self.setting("AMQP_MANAGEMENT_URL").parse().expect("a URL");
        url.set_path(path);
        let answer = reqwest::Client::new().request(method, url).json(&body).send().await;
        let answer = answer.expect("the management API answers");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
    }

    fn script(&self, name: &str) -> Command {
        let path: PathBuf = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/local").join(name);
        let mut command = Command::new(path);
        command.env("REGISTRAR_INSTANCE", self.instance).stdin(Stdio::null());
        command
    }
}

impl Drop for OwnBroker {
    fn drop(&mut self) {
        let ended = self.script("services").args(["down", "rabbitmq"]).output();
        if !ended.is_ok_and(|output| output.status.success()) {
            eprintln!("the broker {} may still run", self.instance);
        }
    }
}

fn run(command: &mut Command) -> String {
    let output = command.output().expect("the scripts of deploy/local run");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("plain text")
}
