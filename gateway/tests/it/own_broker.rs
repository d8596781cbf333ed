//! A broker of a test's own, to be killed and choked, through the scripts that start every other.

use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use reqwest::Method;
use serde_json::{Value, json};
use url::Url;
use uuid::Uuid;

/// RabbitMQ 3.10 writes down the names of new quorum queues lazily: killed sooner, it forgets them.
pub const QUEUES_REMEMBERED_AFTER: Duration = Duration::from_millis(2_500);

/// Begins the names of the vhosts made here.
const VHOST_PREFIX: &str = "run-";

/// Ended by its drop.
pub struct OwnBroker {
    instance: &'static str,
    vhost: String,
}

impl OwnBroker {
    /// Starts it, empty. Instances of different names run side by side.
    pub async fn start(instance: &'static str) -> Self {
        let vhost = format!("{VHOST_PREFIX}{}", Uuid::new_v4().simple());
        let broker = Self { instance, vhost };
        broker.services(&["up", "rabbitmq"]).await;
        // `down` keeps the data, and a run that failed leaves messages. A vhost that comes back under the same name is no
        // way out: RabbitMQ 3.10 still holds its old quorum queues for a while.
        let before = broker.manage(Method::GET, "/api/vhosts", Value::Null).await;
        let names = before.as_array().into_iter().flatten().filter_map(|vhost| vhost["name"].as_str());
        for name in names.filter(|name| name.starts_with(VHOST_PREFIX)) {
            broker.manage(Method::DELETE, &format!("/api/vhosts/{name}"), Value::Null).await;
        }
        let all = json!({ "configure": ".*", "write": ".*", "read": ".*" });
        broker.manage(Method::PUT, &format!("/api/vhosts/{}", broker.vhost), json!({})).await;
        broker.manage(Method::PUT, &format!("/api/permissions/{}/registrar", broker.vhost), all).await;
        broker
    }

    pub fn url(&self) -> String {
        let mut url: Url = self.setting("AMQP_URL").parse().expect("a URL");
        url.set_path(&self.vhost);
        url.to_string()
    }

    /// Messages of a queue, also those that a consumer holds: exact.
    pub async fn messages(&self, queue: &str) -> u64 {
        let listed = self.ctl(&["list_queues", "-p", &self.vhost, "name", "messages"]).await;
        let mut counts = listed.lines().filter_map(|line| line.split_once('\t'));
        let count = counts.find_map(|(name, count)| (name == queue).then(|| count.trim().parse().ok())?);
        count.unwrap_or_else(|| panic!("{queue} is not among {listed}"))
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

    async fn manage(&self, method: Method, path: &str, body: Value) -> Value {
        let mut url: Url = self.setting("AMQP_MANAGEMENT_URL").parse().expect("a URL");
        url.set_path(path);
        let answer = reqwest::Client::new().request(method, url).json(&body).send().await;
        let answer = answer.expect("the management API answers");
        assert!(answer.status().is_success(), "{path}: {}", answer.status());
        let text = answer.text().await.expect("a body");
        serde_json::from_str(&text).unwrap_or_default()
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
