//! What only the database knows to be wrong: the request is accepted, and its operation says `rejected` with the problem
//! type that a synchronous refusal would have had. `Prefer: wait` answers 200 with it.

use contracts::Role;
use rust_decimal::Decimal;
use serde_json::{Value, json};
use testkit::{
    Process, Sandbox,
    fixtures::{self, InsertedCourseBatch, NewCourseBatch},
};
use uuid::Uuid;

use crate::system::{Answer, Gateway, System, answer, token};

/// A sandbox with everything running on it, and two students who hold seats.
struct Scene {
    sandbox: Sandbox,
    system: System,
    gateway: Gateway,
    workers: Process,
    batch: InsertedCourseBatch,
    asha: Student,
    bela: Student,
}

struct Student {
    token: String,
    registration: Uuid,
}

impl Scene {
    async fn set(test: &str) -> Self {
        let sandbox = Sandbox::new(test).await;
        let batch = NewCourseBatch::of(10).insert(&sandbox.db).await;
        let asha = Student::of(&sandbox, &batch, "asha").await;
        let bela = Student::of(&sandbox, &batch, "bela").await;
        let system = System::of(&sandbox);
        let (gateway, workers) = tokio::join!(system.gateway(&[]), system.workers("all"));
        Self { sandbox, system, gateway, workers, batch, asha, bela }
    }

    /// Half of what is due, so that there may be a second one.
    fn payment(&self, student: &Student, reference: &str) -> Value {
        let half = self.batch.amount_due / Decimal::TWO;
        json!({
            "registration_id": student.registration,
            "method": "upi",
            "transaction_id": reference,
            "amount": half.to_string(),
            "currency": self.batch.currency,
        })
    }

    async fn pay(&self, student: &Student, key: &str, body: &Value) -> Answer {
        settled(&self.gateway, "/v1/payments", Some(&student.token), key, body).await
    }

    async fn close(mut self) {
        self.sandbox.assert_drained().await;
        assert!(self.workers.terminate().await.success());
        assert!(self.gateway.process.terminate().await.success());
        drop(self.system);
        self.sandbox.close().await;
    }
}

impl Student {
    async fn of(sandbox: &Sandbox, batch: &InsertedCourseBatch, name: &str) -> Self {
        let user = fixtures::user(&sandbox.db, &sandbox.email(name), Role::Student).await;
        let registration = fixtures::registration(&sandbox.db, batch, user.id, "seat_held").await;
        Self { token: token(user.id, Role::Student), registration }
    }
}

/// Posts and waits for the outcome in the same request.
async fn settled(gateway: &Gateway, path: &str, token: Option<&str>, key: &str, body: &Value) -> Answer {
    let request = gateway.post(path).header("Idempotency-Key", key).header("Prefer", "wait=30").json(body);
    answer(match token {
        Some(token) => request.bearer_auth(token),
        None => request,
    })
    .await
}

fn succeeded(answer: &Answer) -> &Value {
    assert_eq!((answer.status, answer.body["state"].as_str()), (200, Some("succeeded")), "{}", answer.body);
    assert_eq!(answer.header("preference-applied"), Some("wait"));
    &answer.body["result"]
}

fn rejected<'a>(answer: &'a Answer, slug: &str, status: u16) -> &'a Value {
    assert_eq!((answer.status, answer.body["state"].as_str()), (200, Some("rejected")), "{}", answer.body);
    assert_eq!(answer.header("preference-applied"), Some("wait"));
    let problem = &answer.body["problem"];
    assert_eq!(problem["type"], format!("/problems/{slug}"), "{problem}");
    assert_eq!(problem["status"], status, "{problem}");
    assert_eq!(problem["retryable"], false, "{problem}");
    problem
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn payments_and_decisions_are_rejected_with_their_reason() {
    let scene = Scene::set("rejected payments").await;
    let (asha, bela) = (&scene.asha, &scene.bela);
    let others = scene.pay(bela, "others", &scene.payment(asha, "UTR OTHERS 1")).await;
    rejected(&others, "registration-not-found", 404);

    let mut too_much = scene.payment(asha, "UTR MUCH 1");
    too_much["amount"] = json!((scene.batch.amount_due + Decimal::ONE).to_string());
    let answer = scene.pay(asha, "too much", &too_much).await;
    let problem = rejected(&answer, "overpayment", 409);
    assert_eq!(problem["amount_due"], scene.batch.amount_due.to_string(), "what would be right");

    let first = scene.pay(asha, "first", &scene.payment(asha, "UTR 12345-a")).await;
    let payment = succeeded(&first)["payment_id"].as_str().expect("an id").to_owned();
    let again = scene.pay(asha, "again", &scene.payment(asha, "UTR 12345-a")).await;
    rejected(&again, "duplicate-reference", 409);
    let by_another = scene.pay(bela, "by another", &scene.payment(bela, "UTR 12345-a")).await;
    rejected(&by_another, "duplicate-reference", 409);
    let differently = scene.pay(bela, "differently", &scene.payment(bela, "utr12345A")).await;
    rejected(&differently, "duplicate-reference", 409);
    assert!(!by_another.body.to_string().contains(&payment), "nothing of the other student's payment is told");

    let accountant = fixtures::user(&scene.sandbox.db, &scene.sandbox.email("accountant"), Role::Accountant).await;
    let accountant = token(accountant.id, Role::Accountant);
    let path = format!("/v1/payments/{payment}/approve");
    succeeded(&settled(&scene.gateway, &path, Some(&accountant), "one", &json!({})).await);
    rejected(&settled(&scene.gateway, &path, Some(&accountant), "two", &json!({})).await, "already-decided", 409);
    let unknown = format!("/v1/payments/{}/approve", Uuid::now_v7());
    rejected(
        &settled(&scene.gateway, &unknown, Some(&accountant), "three", &json!({})).await,
        "payment-not-found",
        404,
    );
    // The approved payment has an invoice, which is rendered.
    let mut renderer = scene.system.renderer().await;
    scene.sandbox.assert_drained().await;
    assert!(renderer.terminate().await.success());
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_that_came_with_another_payload_is_refused_by_any_gateway() {
    let scene = Scene::set("reused key").await;
    let (first, other) = (scene.payment(&scene.asha, "UTR KEY 1"), scene.payment(&scene.asha, "UTR KEY 2"));
    let accepted = scene.pay(&scene.asha, "the key", &first).await;
    succeeded(&accepted);
    let reused = scene.pay(&scene.asha, "the key", &other).await;
    assert_eq!((reused.status, &reused.body["type"]), (422, &json!("/problems/idempotency-key-reused")));

    let mut cold = scene.system.gateway(&[]).await;
    let post = |body: &Value| {
        let request = cold.post("/v1/payments").bearer_auth(&scene.asha.token);
        request.header("Idempotency-Key", "the key").json(body)
    };
    let reused = answer(post(&other)).await.expect(202);
    let id = reused["id"].as_str().expect("an id");
    let path = format!("/v1/operations/{id}?wait=30");
    for gateway in [&cold, &scene.gateway] {
        let operation = answer(gateway.get(&path).bearer_auth(&scene.asha.token)).await.expect(200);
        assert_eq!(operation["state"], "rejected", "{operation}");
        assert_eq!(operation["problem"]["type"], "/problems/idempotency-key-reused", "{operation}");
        assert!(operation["result"].is_null(), "the other payload's result is not shown");
    }
    succeeded(&scene.pay(&scene.bela, "another key", &scene.payment(&scene.bela, "UTR KEY 3")).await);
    let mine: Value = answer(scene.gateway.get("/v1/payments").bearer_auth(&scene.asha.token)).await.expect(200);
    assert_eq!(mine["items"].as_array().map(Vec::len), Some(1), "another student's is not shown: {mine}");
    assert_eq!(mine["items"][0]["registration_id"], json!(scene.asha.registration), "{mine}");
    assert!(cold.process.terminate().await.success());
    scene.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_registration_for_a_full_course_batch_and_waitlist_is_rejected() {
    let scene = Scene::set("full batch").await;
    let batch = NewCourseBatch::of(1).waitlist(1).insert(&scene.sandbox.db).await;
    let register = async |name: &str, key: &str| {
        let body = json!({
            "batch_id": batch.id,
            "email": scene.sandbox.email(name),
            "full_name": format!("The student {name}"),
        });
        settled(&scene.gateway, "/v1/registrations", None, key, &body).await
    };
    assert_eq!(succeeded(&register("chitra", "c").await)["status"], "seat_held");
    assert_eq!(succeeded(&register("devi", "d").await)["status"], "waitlisted");
    rejected(&register("esha", "e").await, "batch-full", 409);
    let availability = answer(scene.gateway.get(&format!("/v1/batches/{}/availability", batch.id))).await;
    assert_eq!(availability.status, 200);
    scene.close().await;
}
