//! One student's way, as a browser goes it: registration, mail, magic link, payment, approval, invoice, enrollment; with
//! one trace from the first request to the received mail, and an end everywhere when they sign out.

use std::time::Duration;

use contracts::Role;
use serde_json::{Value, json};
use testkit::{
    Mailbox, Sandbox, eventually,
    fixtures::{self, InsertedCourseBatch, NewCourseBatch},
};

use crate::system::{Gateway, LIMIT, System, answer, token};

const TRACE_ID: &str = "0af7651916cd43dd8448eb211c80319c";

/// Waits for the outcome of an accepted command; answers its result.
async fn succeeded(gateway: &Gateway, accepted: &Value, token: Option<&str>) -> Value {
    let id = accepted["id"].as_str().expect("an operation has an id");
    let mut request = gateway.get(&format!("/v1/operations/{id}?wait=30"));
    if let Some(token) = token {
        request = request.bearer_auth(token);
    }
    let operation = answer(request).await.expect(200);
    assert_eq!(operation["state"], "succeeded", "{operation}");
    operation["result"].clone()
}

/// The items of a page, once there are any that pass.
async fn listed(gateway: &Gateway, path: &str, token: &str, passes: impl Fn(&Value) -> bool) -> Vec<Value> {
    eventually(&format!("{path} lists it"), LIMIT, || async {
        let page = answer(gateway.get(path).bearer_auth(token)).await.expect(200);
        let items = page["items"].as_array().expect("a page has items");
        let items: Vec<Value> = items.iter().filter(|item| passes(item)).cloned().collect();
        (!items.is_empty()).then_some(items)
    })
    .await
}

/// Registers as a visitor and opens the mailed link; answers the registration's id and the access token.
async fn sign_up(sandbox: &Sandbox, gateway: &Gateway, batch: &InsertedCourseBatch) -> (String, String) {
    let email = sandbox.email("asha");
    let visitor = json!({ "batch_id": batch.id, "email": email, "full_name": "Asha Rao" });
    let traceparent = format!("00-{TRACE_ID}-b7ad6b7169203331-01");
    let accepted = answer(gateway.post("/v1/registrations").header("traceparent", &traceparent).json(&visitor)).await;
    assert!(accepted.header("traceparent").expect("every answer says its trace").contains(TRACE_ID));
    let held = succeeded(gateway, &accepted.expect(202), None).await;
    assert_eq!(held["status"], "seat_held");

    let mail = Mailbox::new().wait_for_mail(&email, "is held").await;
    let trace = mail.header("traceparent").expect("a mail says its trace");
    assert_eq!(trace.split('-').nth(1), Some(TRACE_ID), "one trace from the request to the mail: {trace}");
    let link = mail.link("token=").expect("the mail has a link");
    let mailed = link.split_once("token=").expect("just seen").1;
    let exchange = json!({ "token": mailed });
    let signed_in = answer(gateway.post("/v1/auth/exchange").json(&exchange)).await.expect(200);
    let token = signed_in["access_token"].as_str().expect("a token").to_owned();
    let confirmation = json!({ "id": signed_in["confirmation"]["operation_id"] });
    succeeded(gateway, &confirmation, Some(&token)).await;
    answer(gateway.post("/v1/auth/exchange").json(&exchange)).await.expect(401);
    (held["registration_id"].as_str().expect("an id").to_owned(), token)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn from_registration_to_invoice_and_sign_out() {
    let sandbox = Sandbox::new("student way").await;
    let batch = NewCourseBatch::of(2).insert(&sandbox.db).await;
    let accountant = fixtures::user(&sandbox.db, &sandbox.email("accountant"), Role::Accountant).await;
    let accountant = token(accountant.id, Role::Accountant);
    let system = System::of(&sandbox);
    let (mut gateway, mut other) = tokio::join!(system.gateway(&[]), system.gateway(&[]));
    let (mut workers, mut renderer) = tokio::join!(system.workers("all"), system.renderer());

    let (registration, token) = sign_up(&sandbox, &gateway, &batch).await;
    let payment = json!({
        "registration_id": registration,
        "method": "bank_transfer",
        "transaction_id": "UTR-WAY-1",
        "amount": batch.amount_due.to_string(),
        "currency": batch.currency,
    });
    let pay = |gateway: &Gateway| {
        answer(gateway.post("/v1/payments").bearer_auth(&token).header("Idempotency-Key", "pay").json(&payment))
    };
    let (first, second) = tokio::join!(pay(&gateway), pay(&other));
    let (first, second) = (first.expect(202), second.expect(202));
    assert_eq!(first["id"], second["id"], "posted twice, one operation");
    let paid = succeeded(&other, &first, Some(&token)).await;
    let payments = listed(&gateway, "/v1/payments", &token, |_| true).await;
    assert_eq!((payments.len(), &payments[0]["id"]), (1, &paid["payment_id"]));

    let path = format!("/v1/payments/{}/approve", paid["payment_id"].as_str().expect("an id"));
    let approved = answer(gateway.post(&path).bearer_auth(&accountant)).await.expect(202);
    succeeded(&gateway, &approved, Some(&accountant)).await;
    let invoices = listed(&other, "/v1/invoices", &token, |invoice| invoice["pdf_ready"] == true).await;
    assert_eq!((invoices.len(), &invoices[0]["payment_id"]), (1, &paid["payment_id"]));
    invoice_is_a_pdf(&other, invoices[0]["id"].as_str().expect("an id"), &token, &accountant).await;

    let enrolled = listed(&gateway, "/v1/enrollments", &token, |_| true).await;
    assert_eq!(enrolled[0]["batch_id"], batch.id.to_string());
    listed(&gateway, "/v1/notifications", &token, |told| told["type"] == "payment_approved").await;
    let mail = Mailbox::new().wait_for_mail(&sandbox.email("asha"), "approved").await;
    assert_eq!(mail.attachments.len(), 1, "the invoice is attached");

    sign_out(&gateway, &other, &token).await;
    sandbox.assert_drained().await;
    for process in [&mut gateway.process, &mut other.process, &mut workers, &mut renderer] {
        assert!(process.terminate().await.success());
    }
    sandbox.close().await;
}

async fn invoice_is_a_pdf(gateway: &Gateway, id: &str, token: &str, stranger: &str) {
    let path = format!("/v1/invoices/{id}/pdf");
    let pdf = gateway.get(&path).bearer_auth(token).send().await.expect("the gateway answers");
    assert_eq!(
        (pdf.status().as_u16(), &pdf.headers()["content-type"]),
        (200, &"application/pdf".parse().expect("ASCII"))
    );
    assert!(pdf.bytes().await.expect("a body").starts_with(b"%PDF-"));
    assert_eq!(answer(gateway.get(&path)).await.status, 401);
    // Accountants see every invoice.
    assert_eq!(gateway.get(&path).bearer_auth(stranger).send().await.expect("an answer").status(), 200);
}

async fn sign_out(gateway: &Gateway, other: &Gateway, token: &str) {
    assert_eq!(answer(gateway.post("/v1/auth/logout").bearer_auth(token)).await.status, 204);
    eventually("both gateways refuse the token", Duration::from_secs(5), || async {
        let (here, there) = tokio::join!(
            answer(gateway.get("/v1/me").bearer_auth(token)),
            answer(other.get("/v1/me").bearer_auth(token))
        );
        here.status == 401 && there.status == 401
    })
    .await;
}
