//! Invoices: one a payment, numbered without a gap, whatever is delivered twice, rolled back or killed.

#![allow(clippy::unwrap_used, reason = "a test may fail where it stands")]

use std::collections::BTreeSet;

use contracts::{
    NewEvent, Principal, ProblemType, Role,
    envelope::join_events,
    ids,
    messages::{DecidePayment, IssueInvoice, PaymentDecision},
};
use sqlx::PgPool;
use testkit::{
    Sandbox, Statements, TableLock, eventually,
    fixtures::{self, NewCourseBatch},
};
use uuid::Uuid;
use workers::{
    invoicing::IssueInvoiceHandler,
    payments::DecidePaymentHandler,
    runtime::{Delivery, Handler},
};

use crate::{
    registrations::{delivery, done, refused, settle},
    support::{PATIENT, SETTLED_LIMIT, Workers, accountant, count, event, publisher, settings, take_events},
};

/// Submitted payments of so many students, each of the whole price.
async fn submitted(sandbox: &Sandbox, count: usize) -> Vec<Uuid> {
    let batch = NewCourseBatch::of(i32::try_from(count).unwrap()).insert(&sandbox.db).await;
    let students = fixtures::students(&sandbox.db, &format!("payer.{}.", batch.id.simple()), count).await;
    let student_ids: Vec<Uuid> = students.iter().map(|student| student.id).collect();
    let registrations = fixtures::registrations(&sandbox.db, &batch, &student_ids, "seat_held").await;
    let reference = |(n, id): (usize, Uuid)| (id, format!("UTR-{}-{n}", batch.id.simple()));
    let claims: Vec<_> = registrations.into_iter().enumerate().map(reference).collect();
    fixtures::payments(&sandbox.db, &claims, batch.amount_due).await
}

/// Approved ones.
pub async fn approved(sandbox: &Sandbox, count: usize) -> Vec<Uuid> {
    let payments = submitted(sandbox, count).await;
    let cashier =
        fixtures::user(&sandbox.db, &sandbox.email(&ids::new_id().simple().to_string()), Role::Accountant).await;
    let decisions: Vec<_> =
        payments.iter().map(|payment_id| delivery(accountant(cashier.id), approval(*payment_id))).collect();
    settle(&sandbox.db, &DecidePaymentHandler, &decisions).await;
    payments
}

fn approval(payment_id: Uuid) -> DecidePayment {
    DecidePayment { payment_id, decision: PaymentDecision::Approve, note: None }
}

pub fn issue(payment_id: Uuid) -> Delivery<IssueInvoice> {
    delivery(Principal::System, IssueInvoice { payment_id })
}

/// What is wrong with the books, in words; nothing where every approved payment has one invoice and no number is missing.
async fn wrong_with_the_books(sandbox: &Sandbox) -> Vec<&'static str> {
    let holds: Vec<(bool, &'static str)> = vec![
        (
            count(sandbox, "SELECT count(*) FROM payments WHERE status = 'approved'").await
                == count(sandbox, "SELECT count(DISTINCT payment_id) FROM invoices").await,
            "an approved payment has no invoice",
        ),
        (
            count(sandbox, "SELECT count(*) - count(DISTINCT payment_id) FROM invoices").await == 0,
            "a payment has two invoices",
        ),
        (count(sandbox, "SELECT count(*) - coalesce(max(seq), 0) FROM invoices").await == 0, "the numbers have a gap"),
        (
            count(sandbox, "SELECT count(DISTINCT number) - coalesce(max(seq), 0) FROM invoices").await == 0,
            "a number stands twice",
        ),
        (
            count(sandbox, "SELECT max(s.next_seq) - 1 - (SELECT count(*) FROM invoices) FROM invoice_series s").await
                == 0,
            "the series and its invoices differ",
        ),
        (
            count(
                sandbox,
                "SELECT count(*) FROM invoices i JOIN payments p ON p.id = i.payment_id WHERE i.total <> p.amount",
            )
            .await
                == 0,
            "an invoice is not about what was paid",
        ),
        (
            count(
                sandbox,
                "SELECT count(*)
                   FROM invoices i
                  WHERE i.subtotal <> (SELECT sum(l.amount) FROM invoice_lines l WHERE l.invoice_id = i.id)
                     OR i.tax <> (SELECT sum(l.tax) FROM invoice_lines l WHERE l.invoice_id = i.id)",
            )
            .await
                == 0,
            "lines do not add up to their invoice",
        ),
        (
            count(
                sandbox,
                "SELECT count(*) - (SELECT count(*) FROM audit_logs WHERE action = 'invoice.issued') FROM invoices",
            )
            .await
                == 0,
            "invoices and audit rows differ",
        ),
    ];
    holds.into_iter().filter(|(holds, _)| !holds).map(|(_, what)| what).collect()
}

const NOTHING: [&str; 0] = [];

#[tokio::test]
async fn a_payment_has_one_invoice_however_often_it_is_asked_for() {
    let sandbox = Sandbox::new("one_invoice_a_payment").await;
    let handler = IssueInvoiceHandler::new(&settings(&sandbox).institute);
    let payments = approved(&sandbox, 3).await;
    let undecided = submitted(&sandbox, 1).await[0];
    let asked = [
        issue(payments[0]),
        issue(payments[0]),
        issue(payments[1]),
        issue(payments[0]),
        issue(undecided),
        issue(ids::new_id()),
    ];
    let first = settle(&sandbox.db, &handler, &asked).await;
    assert_eq!(done(&first[0]), done(&first[1]));
    assert_eq!(done(&first[0]), done(&first[3]));
    assert_ne!(done(&first[0]).number, done(&first[2]).number);
    assert!(refused(&first[4], ProblemType::NothingToInvoice));
    assert!(refused(&first[5], ProblemType::PaymentNotFound));
    assert_eq!(handler.follow_ups(&asked[0], &first[0]).len(), 1, "its PDF");
    assert!(handler.follow_ups(&asked[4], &first[4]).is_empty());

    let again = [issue(payments[2]), issue(payments[0])];
    let second = settle(&sandbox.db, &handler, &again).await;
    assert_eq!(done(&second[1]), done(&first[0]));
    assert!(done(&second[0]).number.ends_with("00003"), "{}", done(&second[0]).number);
    assert_eq!(wrong_with_the_books(&sandbox).await, NOTHING);
    sandbox.close().await;
}

#[tokio::test]
async fn transactions_at_once_number_each_payment_once_and_a_rollback_leaves_no_gap() {
    let sandbox = Sandbox::new("invoices_at_once").await;
    let handler = IssueInvoiceHandler::new(&settings(&sandbox).institute);
    let payments = approved(&sandbox, 20).await;
    let deliveries =
        |range: std::ops::Range<usize>| -> Vec<_> { payments[range].iter().map(|id| issue(*id)).collect() };
    let rolled_back = async {
        let mut tx = sandbox.db.begin().await.unwrap();
        handler.apply(&mut tx, &deliveries(5..15)).await.unwrap();
        tx.rollback().await.unwrap();
    };
    let (up, down, all) = (deliveries(0..12), deliveries(8..20), deliveries(0..20));
    tokio::join!(
        rolled_back,
        settle(&sandbox.db, &handler, &up),
        settle(&sandbox.db, &handler, &down),
        settle(&sandbox.db, &handler, &all),
    );
    assert_eq!(wrong_with_the_books(&sandbox).await, NOTHING);
    assert_eq!(count(&sandbox, "SELECT count(*) FROM invoices").await, 20);
    sandbox.close().await;
}

#[tokio::test]
async fn the_number_of_statements_does_not_depend_on_the_number_of_deliveries() {
    let sandbox = Sandbox::new("statements_of_invoicing").await;
    let handler = IssueInvoiceHandler::new(&settings(&sandbox).institute);
    let payments = approved(&sandbox, 259).await;
    // The first invoice of a year opens its series.
    settle(&sandbox.db, &handler, &[issue(payments[258])]).await;
    let statements = Statements::record();
    let mut counts = Vec::new();
    for range in [0..2, 2..258] {
        let batch: Vec<_> = payments[range].iter().map(|id| issue(*id)).collect();
        statements.take();
        settle(&sandbox.db, &handler, &batch).await;
        counts.push(statements.take().len());
    }
    assert_eq!(counts[0], counts[1]);
    assert!(counts[0] <= 6, "{counts:?}");
    sandbox.close().await;
}

/// Where transactions are cut off, in turn: while a payment is decided, before an invoice has its number, after, and
/// where its rows are half written.
const CUT_AT: [&str; 5] = ["enrollments", "invoice_series", "invoices", "invoice_lines", "audit_logs"];
/// The pools of the process that is killed, in an order of their own: its connections are named after them.
const DOOMED_POOLS: &str = "invoicing,payments";
/// The slice of approvals that the kill falls into.
const KILLED_IN: usize = 10;

/// Publishes approvals twice, in arrays that overlap.
async fn publish_twice(sandbox: &Sandbox, events: &[NewEvent], array_sizes: [usize; 2]) {
    for array in array_sizes.into_iter().flat_map(|size| events.chunks(size)) {
        let body = join_events(array.iter().map(|event| &event.bytes));
        sandbox.publish_raw("commands", "payments", &body).await;
    }
}

/// Cuts off whoever has taken a number and waits to write the invoice, until that is the doomed process.
async fn doomed_has_a_number(lock: &TableLock, role: &PgPool) {
    while lock.waiter().await.application != format!("workers {DOOMED_POOLS}") {
        lock.cut_waiter(role).await;
    }
}

/// Two processes, two consumers each, small batches; every approval comes twice, every slice of them has a transaction cut
/// off in the middle, and one process is killed with a number in its hands. Each slice is published under a lock that its
/// transactions run into, so the disturbance meets work in flight, however quick the machine is.
#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_approvals_under_fire_are_a_thousand_numbers_without_a_gap() {
    let sandbox = Sandbox::new("thousand_approvals").await;
    let payments = submitted(&sandbox, 1_000).await;
    let cashier = fixtures::user(&sandbox.db, &sandbox.email("cashier"), Role::Accountant).await;
    drop(publisher(&sandbox).await);
    let events: Vec<_> = payments.iter().map(|id| event(accountant(cashier.id), &approval(*id))).collect();

    let workers = Workers::of(&sandbox);
    let small_batches = [
        ("REGISTRAR__RUNTIME__CONSUMERS", "2"),
        ("REGISTRAR__RUNTIME__FOLLOW_UP_CONSUMERS", "2"),
        ("REGISTRAR__RUNTIME__PREFETCH", "2"),
        ("REGISTRAR__RUNTIME__BATCH_MAX", "24"),
    ];
    let settings = [&small_batches[..], &PATIENT].concat();
    let mut survivor = workers.start_with("payments,invoicing", &settings).await;
    let mut doomed = workers.start_with(DOOMED_POOLS, &settings).await;
    let mut restarted = None;
    let role = PgPool::connect(&sandbox.workers_url()).await.unwrap();
    for (number, slice) in events.chunks(50).enumerate() {
        if number == KILLED_IN {
            // One approval a message: more than the survivor may hold, so the doomed process has some.
            let lock = TableLock::acquire(&sandbox.db, "invoices").await;
            publish_twice(&sandbox, slice, [1, 1]).await;
            doomed_has_a_number(&lock, &role).await;
            doomed.kill9();
            lock.release().await;
            restarted = Some(workers.start_with("payments,invoicing", &settings).await);
        } else {
            let lock = TableLock::acquire(&sandbox.db, CUT_AT[number % CUT_AT.len()]).await;
            publish_twice(&sandbox, slice, [50, 40]).await;
            lock.cut_waiter(&role).await;
            lock.release().await;
        }
    }
    role.close().await;
    eventually("all are invoiced", SETTLED_LIMIT, || async {
        count(&sandbox, "SELECT count(*) FROM invoices").await >= 1_000
    })
    .await;
    eventually("every delivery is acked", SETTLED_LIMIT, || async {
        sandbox.queue_depth("payments").await + sandbox.queue_depth("invoicing").await == 0
    })
    .await;
    for process in [&mut survivor, &mut restarted.unwrap()] {
        assert!(process.terminate().await.success());
    }

    assert_eq!(wrong_with_the_books(&sandbox).await, NOTHING);
    assert_eq!(count(&sandbox, "SELECT count(*) FROM invoices").await, 1_000);
    assert_eq!(count(&sandbox, "SELECT count(*) FROM enrollments").await, 1_000);
    let rendered: BTreeSet<_> = take_events(&sandbox, "documents").await.into_iter().collect();
    assert_eq!(rendered.len(), 1_000, "every invoice is to become a PDF, and none a second one");
    for queue in ["notifications", "email"] {
        assert!(take_events(&sandbox, queue).await.len() >= 1_000, "every student is notified: {queue}");
    }
    sandbox.close().await;
}
