//! A mail server that refuses, is busy, or hangs up after it took the mail: each mail ends as it must, beside good ones.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::{
    collections::HashSet,
    sync::{Arc, Mutex},
};

use contracts::Principal;
use testkit::{Sandbox, eventually};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::{
    email::mail,
    support::{SETTLED_LIMIT, Workers, count, event, publisher},
};

/// Behaves by the recipient's name. What it does once, it does at the first mail to that address.
#[derive(Clone, Default)]
struct Server {
    seen: Arc<Mutex<HashSet<String>>>,
    /// Recipient and Message-ID of every mail that was taken whole, in order.
    taken: Arc<Mutex<Vec<(String, String)>>>,
}

impl Server {
    async fn start(&self) -> String {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let url = format!("smtp://{}", listener.local_addr().unwrap());
        let server = self.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let server = server.clone();
                tokio::spawn(async move { server.converse(stream).await });
            }
        });
        url
    }

    fn is_first(&self, recipient: &str) -> bool {
        self.seen.lock().unwrap().insert(recipient.to_owned())
    }

    fn taken_by(&self, recipient: &str) -> Vec<String> {
        let taken = self.taken.lock().unwrap();
        taken.iter().filter(|(to, _)| to == recipient).map(|(_, id)| id.clone()).collect()
    }

    async fn converse(&self, stream: TcpStream) -> std::io::Result<()> {
        let (read, mut write) = stream.into_split();
        let mut lines = BufReader::new(read).lines();
        let mut recipient = String::new();
        write.write_all(b"220 scripted\r\n").await?;
        while let Some(line) = lines.next_line().await? {
            let command = line.to_ascii_uppercase();
            let reply = if command.starts_with("RCPT TO:") {
                recipient = line["RCPT TO:".len()..].trim_matches(['<', '>', ' ']).to_owned();
                match recipient.split('.').next() {
                    Some("refused") => "550 no such mailbox",
                    Some("busy") if self.is_first(&recipient) => "451 try again later",
                    _ => "250 ok",
                }
            } else if command == "DATA" {
                write.write_all(b"354 go on\r\n").await?;
                let mut message_id = String::new();
                while let Some(line) = lines.next_line().await?.filter(|line| line != ".") {
                    if let Some(id) = line.strip_prefix("Message-ID: ") {
                        message_id = id.to_owned();
                    }
                }
                self.taken.lock().unwrap().push((recipient.clone(), message_id));
                if recipient.starts_with("vanish.") && self.is_first(&recipient) {
                    return Ok(());
                }
                "250 taken"
            } else if command == "QUIT" {
                "221 bye"
            } else {
                "250 ok"
            };
            write.write_all(format!("{reply}\r\n").as_bytes()).await?;
        }
        Ok(())
    }
}

#[tokio::test]
async fn each_mail_ends_as_its_server_answers_and_no_other_with_it() {
    let sandbox = Sandbox::new("scripted_mail_server").await;
    let publisher = publisher(&sandbox).await;
    let server = Server::default();
    let url = server.start().await;
    let mut process =
        Workers::of(&sandbox).start_with("email,dead-letters", &[("REGISTRAR__SMTP__URL", url.as_str())]).await;
    let [good, refused, busy, vanish] = ["good", "refused", "busy", "vanish"].map(|name| sandbox.email(name));
    let mails = [&good, &refused, &busy, &vanish].map(|to| event(Principal::System, &mail(to, &format!("to:{to}"))));
    publisher.publish_all(mails).await.unwrap();
    eventually("three are sent", SETTLED_LIMIT, || async {
        count(&sandbox, "SELECT count(*) FROM email_logs WHERE status = 'sent'").await == 3
    })
    .await;
    eventually("the fourth is parked", SETTLED_LIMIT, || async {
        let parked = "SELECT count(*) FROM dead_letters WHERE state = 'parked' AND kind = 'email.send.v1'";
        count(&sandbox, parked).await == 1
    })
    .await;
    let failed: (String, String, i32) =
        sqlx::query_as("SELECT to_email::text, last_error, attempts FROM email_logs WHERE status = 'failed'")
            .fetch_one(&sandbox.db)
            .await
            .unwrap();
    assert!(failed.0 == refused && failed.1.contains("no such mailbox") && failed.2 == 1, "{failed:?}");
    assert_eq!(server.taken_by(&good).len(), 1, "a neighbour's trouble repeats nothing");
    assert_eq!(server.taken_by(&busy).len(), 1);
    assert!(server.taken_by(&refused).is_empty());
    let repeated = server.taken_by(&vanish);
    assert!(repeated.len() == 2 && repeated[0] == repeated[1] && !repeated[0].is_empty(), "{repeated:?}");
    sandbox.assert_drained().await;
    assert!(process.terminate().await.success());
    sandbox.close().await;
}
