//! The public CloudEvents SDK agrees: it reads what we write, and we read what it writes.

use chrono::{SubsecRound, Utc};
use cloudevents::{
    AttributesReader, Data, EventBuilder, EventBuilderV10,
    event::{ExtensionValue, SpecVersion},
};
use contracts::{Event, Fingerprint, Principal, TraceParent, envelope::join_events, ids};
use serde_json::{Value, json};

use crate::one_of_each;

#[test]
fn the_sdk_reads_what_we_write() {
    let events = one_of_each();
    let body = join_events(events.iter().map(|event| &event.bytes));
    let theirs: Vec<cloudevents::Event> = serde_json::from_slice(&body).expect("the SDK reads our array");
    let ours = Event::decode_message(&body).expect("so do we");
    assert_eq!(theirs.len(), ours.len());
    for (their, our) in theirs.iter().zip(ours) {
        let our = our.expect("our own event");
        assert_eq!(their.specversion(), SpecVersion::V10);
        assert_eq!(their.id(), our.id.to_string());
        assert_eq!(their.ty(), our.kind);
        assert_eq!(their.source().as_str(), our.source);
        assert_eq!(their.subject(), Some(&*our.subject));
        assert_eq!(their.time(), Some(&our.time));
        let text = |name: &str| their.extension(name).map(ToString::to_string);
        assert_eq!(text("traceparent"), Some(our.traceparent.to_string()));
        assert_eq!(text("principal"), Some(our.principal.to_string()));
        assert_eq!(text("fingerprint"), Some(our.fingerprint.to_string()));
        assert_eq!(text("parentid"), our.parent.map(|id| id.to_string()));
        let Some(Data::Json(data)) = their.data() else { panic!("{} has no JSON data", our.kind) };
        assert_eq!(data, &serde_json::from_str::<Value>(our.data.get()).expect("JSON"));
    }
}

#[test]
fn we_read_what_the_sdk_writes() {
    let (id, trace) = (ids::new_id(), TraceParent::new());
    let time = Utc::now().trunc_subsecs(6);
    let data = json!({ "payment_id": ids::new_id(), "text": "Ünïcode \"quoted\" \\ \u{1F600}" });
    let fingerprint = Fingerprint::of("invoice.issue.v1", b"{}");
    let event = EventBuilderV10::new()
        .id(id.to_string())
        .ty("invoice.issue.v1")
        .source("/workers/payments")
        .subject("a subject")
        .time(time)
        .extension("traceparent", trace.to_string())
        .extension("principal", "system")
        .extension("fingerprint", fingerprint.to_string())
        .extension("attempt", ExtensionValue::Integer(2))
        .data("application/json", data.clone())
        .build()
        .expect("the SDK accepts it");
    let body = serde_json::to_vec(&vec![event]).expect("the SDK writes it");
    let mut ours = Event::decode_message(&body).expect("an array");
    let our = ours.remove(0).expect("a CloudEvent of ours");
    assert_eq!(
        (our.id, &*our.kind, &*our.source, &*our.subject),
        (id, "invoice.issue.v1", "/workers/payments", "a subject")
    );
    assert_eq!((our.time, our.traceparent, our.principal), (time, trace, Principal::System));
    assert_eq!((our.fingerprint, our.attempt, our.replay, our.parent), (fingerprint, 2, 0, None));
    assert_eq!(serde_json::from_str::<Value>(our.data.get()).expect("JSON"), data);
}
