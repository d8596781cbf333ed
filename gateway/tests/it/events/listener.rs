//! A client of `GET /v1/events` that reads the stream as a browser does.

use std::time::Duration;

use reqwest::{Response, StatusCode};
use serde_json::Value;

use crate::system::Gateway;

/// An event that was dispatched.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    pub name: String,
    /// The position after it.
    pub id: String,
    pub data: Value,
}

/// What a stream said.
#[derive(Clone, Debug, PartialEq)]
pub enum Said {
    Event(Event),
    /// A comment, or an id without data: nothing that a page is shown.
    Nothing,
    End,
}

pub struct Listener {
    response: Response,
    text: String,
    /// How much of it was read.
    at: usize,
    /// What the browser would send as `Last-Event-ID`.
    pub last_id: String,
    /// Comments so far.
    pub comments: usize,
}

impl Listener {
    /// Listens from now on; the stream is open, and what happens from here is told.
    pub async fn new(gateway: &Gateway, token: &str) -> Self {
        Self::from(gateway, token, None).await
    }

    /// Goes on from a position.
    pub async fn from(gateway: &Gateway, token: &str, last_id: Option<&str>) -> Self {
        let mut request = gateway.get("/v1/events").timeout(Duration::from_secs(600)).bearer_auth(token);
        if let Some(id) = last_id {
            request = request.header("Last-Event-ID", id);
        }
        let response = request.send().await.expect("the gateway answers");
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        assert_eq!(response.headers()["cache-control"], "no-store");
        Self { response, text: String::new(), at: 0, last_id: last_id.unwrap_or_default().to_owned(), comments: 0 }
    }

    /// Where the stream begins.
    pub async fn first_position(mut self) -> String {
        assert_eq!(self.said().await, Said::Nothing);
        self.last_id
    }

    /// The next event, passing over what no page is shown.
    pub async fn next(&mut self, within: Duration) -> Event {
        let next = async {
            loop {
                match self.said().await {
                    Said::Event(event) => return event,
                    Said::Nothing => {}
                    Said::End => panic!("the stream ended"),
                }
            }
        };
        tokio::time::timeout(within, next).await.unwrap_or_else(|_| panic!("no event within {within:?}"))
    }

    /// Waits for the end, passing over whatever comes before.
    pub async fn end(&mut self, within: Duration) {
        let end = async { while self.said().await != Said::End {} };
        tokio::time::timeout(within, end).await.unwrap_or_else(|_| panic!("no end within {within:?}"));
    }

    /// The next block.
    pub async fn said(&mut self) -> Said {
        loop {
            if let Some(length) = self.text[self.at..].find("\n\n") {
                let block = self.text[self.at..self.at + length].to_owned();
                self.at += length + 2;
                return self.read(&block);
            }
            self.text.drain(..self.at);
            self.at = 0;
            match self.response.chunk().await {
                Ok(Some(chunk)) => self.text.push_str(std::str::from_utf8(&chunk).expect("whole characters")),
                Ok(None) => return Said::End,
                Err(error) => panic!("the stream broke: {error:?}"),
            }
        }
    }

    fn read(&mut self, block: &str) -> Said {
        let (mut name, mut data) = (None, None);
        for line in block.lines() {
            match line.split_once(": ") {
                Some(("event", value)) => name = Some(value.to_owned()),
                Some(("id", value)) => self.last_id = value.to_owned(),
                Some(("data", value)) => data = Some(serde_json::from_str(value).expect("JSON")),
                Some(("retry", value)) => assert!(value.parse::<u32>().is_ok()),
                _ => {
                    assert!(line.starts_with(':'), "{line}");
                    self.comments += 1;
                }
            }
        }
        match (name, data) {
            (Some(name), Some(data)) => Said::Event(Event { name, id: self.last_id.clone(), data }),
            (None, None) => Said::Nothing,
            half => panic!("{half:?}"),
        }
    }
}
