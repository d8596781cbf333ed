//! What became of a request: told as soon as it is settled, on any gateway, to whoever may know and to nobody else.

use contracts::Role;
use serde_json::{Value, json};
use testkit::{
    Sandbox, eventually,
    fixtures::{self, NewCourseBatch},
};

use crate::system::{LIMIT, System, answer, token};

/// What is awaited would also be read now and then: not while the test lasts, so whoever is notified is notified live.
const NO_SWEEPS: [(&str, &str); 1] = [("REGISTRAR__LIVE__WAITER_SWEEP_MS", "3600000")];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_waits_at_another_gateway_is_woken_at_once() {
    const ROUNDS: usize = 4;
    let sandbox = Sandbox::new("live across").await;
    let batch = NewCourseBatch::of(10).insert(&sandbox.db).await;
    let system = System::of(&sandbox);
    let (mut first, mut second) = tokio::join!(system.gateway(&NO_SWEEPS), system.gateway(&NO_SWEEPS));
    second.listens().await;
    let mut workers = system.workers("all").await;
    for round in 0..ROUNDS {
        workers.signal("STOP");
        let body = json!({
            "batch_id": batch.id,
            "email": sandbox.email(&format!("visitor{round}")),
            "full_name": "A visitor",
        });
        let accepted = answer(first.post("/v1/registrations").json(&body)).await;
        let location = accepted.header("location").expect("a 202 says where to look").to_owned();
        assert_eq!((accepted.status, accepted.header("retry-after")), (202, Some("1")));
        let awaited = answer(second.get(&format!("{location}?wait=30")));
        let worked = async {
            eventually("the other gateway waits", LIMIT, || async { second.metric("gateway_waiters").await == 1.0 })
                .await;
            workers.signal("CONT");
        };
        let (settled, ()) = tokio::join!(awaited, worked);
        assert_eq!(settled.expect(200)["state"], "succeeded", "round {round}");
    }
    let notified = second.metric("gateway_waits_told_total{how=\"woken\"}").await;
    assert_eq!(notified, ROUNDS as f64, "each was notified, none found it by itself");
    sandbox.assert_drained().await;
    for process in [&mut first.process, &mut second.process, &mut workers] {
        assert!(process.terminate().await.success());
    }
    sandbox.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_operation_is_shown_to_its_owner_alone() {
    let sandbox = Sandbox::new("whose operation").await;
    let batch = NewCourseBatch::of(10).insert(&sandbox.db).await;
    let user = async |name: &str, role| fixtures::user(&sandbox.db, &sandbox.email(name), role).await.id;
    let (asha, bela) = (user("asha", Role::Student).await, user("bela", Role::Student).await);
    let admin = token(user("admin", Role::Admin).await, Role::Admin);
    let (asha, bela) = (token(asha, Role::Student), token(bela, Role::Student));
    let system = System::of(&sandbox);
    let (mut gateway, mut workers) = tokio::join!(system.gateway(&[]), system.workers("all"));
    let post = || {
        let request = gateway.post("/v1/registrations").bearer_auth(&asha).header("Idempotency-Key", "mine");
        answer(request.json(&json!({ "batch_id": batch.id })))
    };
    let first = post().await;
    assert_eq!(first.header("idempotency-replayed"), None);
    let id = first.expect(202)["id"].as_str().expect("an id").to_owned();
    let again = post().await;
    assert_eq!(again.header("idempotency-replayed"), Some("true"));
    assert_eq!(again.expect(202)["id"], id, "the same operation");

    let path = format!("/v1/operations/{id}");
    let show = |token: &str| answer(gateway.get(&path).bearer_auth(token));
    let mine = answer(gateway.get(&format!("{path}?wait=30")).bearer_auth(&asha)).await.expect(200);
    assert_eq!((mine["state"].as_str(), mine["id"].as_str()), (Some("succeeded"), Some(id.as_str())));
    assert_eq!(show(&bela).await.expect(404)["type"], "/problems/not-found", "another student's");
    answer(gateway.get(&path)).await.expect(404);
    assert_eq!(show(&admin).await.expect(200)["state"], "succeeded");
    for forged in forgeries(&id) {
        answer(gateway.get(&format!("/v1/operations/{forged}")).bearer_auth(&asha)).await.expect(404);
    }

    let list = async |token: &str| -> Vec<Value> {
        let page = answer(gateway.get("/v1/operations").bearer_auth(token)).await.expect(200);
        page["items"].as_array().expect("a list").clone()
    };
    let listed = list(&asha).await;
    assert_eq!((listed.len(), &listed[0]["id"], &listed[0]["state"]), (1, &json!(id), &json!("succeeded")));
    assert!(list(&bela).await.is_empty());
    sandbox.assert_drained().await;
    assert!(workers.terminate().await.success() && gateway.process.terminate().await.success());
    sandbox.close().await;
}

/// Ids that look like this one and were never handed out.
fn forgeries(id: &str) -> [String; 4] {
    let replace = |at: usize| {
        let mut bytes = id.as_bytes().to_vec();
        bytes[at] = if bytes[at] == b'1' { b'2' } else { b'1' };
        String::from_utf8(bytes).expect("ASCII")
    };
    [replace(5), replace(id.len() - 1), format!("{id}0"), "op_1".to_owned()]
}
