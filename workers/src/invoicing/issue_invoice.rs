//! `invoice.issue.v1`: issues the invoice of each approved payment, once, with the next number of its series. The series
//! stays locked until the invoices are committed or rolled back together with its counter: so numbers have no gap and no
//! duplicate.

use std::collections::{HashMap, HashSet};

use chrono::{DateTime, Utc};
use contracts::{
    Outcome, Principal, Problem, ProblemType, ids,
    messages::{IssueInvoice, RenderInvoice},
};
use rust_decimal::Decimal;
use serde_json::{Value, json};
use sqlx::PgConnection;
use uuid::Uuid;

use super::{
    financial_year,
    issued_invoice::IssuedInvoice,
    money::{self, Amounts, Invoiced},
    payment_to_invoice::{PaymentToInvoice, PaymentsToInvoice, select_payments},
};
use crate::{
    audit::{self, Actor, AuditEntry},
    config::{Institute, NumberFormat},
    runtime::{Delivery, Failure, FollowUp, Handler},
};

/// Settles `invoice.issue.v1`.
#[derive(Clone, Debug)]
pub struct IssueInvoiceHandler {
    institute: Institute,
    format: NumberFormat,
    supplier: Value,
}

impl IssueInvoiceHandler {
    /// Creates the handler for the issuing institute, whose particulars are copied into every invoice.
    pub fn new(institute: &Institute) -> Self {
        let format =
            NumberFormat::parse(&institute.number_format).expect("WorkerSettings::check refused any other format");
        let supplier = json!({
            "name": institute.name,
            "legal_name": institute.legal_name,
            "address": institute.address,
            "tax_id": institute.tax_id,
            "bank_details": institute.bank_details,
            "tax_label": institute.tax_label,
        });
        Self { institute: institute.clone(), format, supplier }
    }

    fn financial_year(&self, at: DateTime<Utc>) -> String {
        let day = financial_year::local_date(at, self.institute.time_zone.0);
        financial_year::financial_year(day, self.institute.financial_year_start_month)
    }

    /// Locks the series of every year, so that at the turn of the year no two transactions split one registration's price
    /// at once; returns the current year's series, created where it is missing.
    async fn lock_series(&self, tx: &mut PgConnection) -> Result<Series, Failure> {
        if let Some(series) = self.current(lock_all_series(tx).await?) {
            return Ok(series);
        }
        let now = sqlx::query_scalar!(r#"SELECT clock_timestamp() AS "now!""#).fetch_one(&mut *tx).await?;
        sqlx::query!(
            "INSERT INTO invoice_series (id, kind, financial_year, prefix)
             VALUES ($1, 'invoice', $2, $3)
             ON CONFLICT (kind, financial_year) DO NOTHING",
            ids::new_id(),
            self.financial_year(now),
            self.institute.invoice_prefix,
        )
        .execute(&mut *tx)
        .await?;
        self.current(lock_all_series(tx).await?).ok_or(Failure::Race)
    }

    fn current(&self, locked: Vec<Series>) -> Option<Series> {
        locked.into_iter().find(|series| series.financial_year == self.financial_year(series.now))
    }

    fn draw_up(
        &self,
        series: &Series,
        deliveries: &[Delivery<IssueInvoice>],
        payments: &PaymentsToInvoice,
    ) -> Vec<Draft> {
        let mut invoiced: HashMap<Uuid, Invoiced> = HashMap::new();
        let mut drawn = HashSet::new();
        let mut drafts = Vec::new();
        for delivery in deliveries {
            let Some(payment) = payments.get(&delivery.command.payment_id).filter(|payment| payment.is_due()) else {
                continue;
            };
            if !drawn.insert(payment.id) {
                continue;
            }
            let so_far = invoiced.entry(payment.registration_id).or_insert_with(|| payment.invoiced());
            let amounts = money::split(&payment.price(), so_far, payment.amount, self.institute.rounding_step);
            *so_far = so_far.with(&amounts);
            let seq = series.next_seq + i64::try_from(drafts.len()).expect("deliveries settled together are few");
            drafts.push(Draft {
                id: ids::new_id(),
                seq,
                number: self.format.number(&series.prefix, &series.financial_year, seq),
                operation_id: delivery.id,
                payment_id: payment.id,
                amounts,
            });
        }
        drafts
    }
}

impl Handler for IssueInvoiceHandler {
    type Command = IssueInvoice;
    type Result = IssuedInvoice;
    type Memo = ();

    async fn apply(
        &self,
        tx: &mut PgConnection,
        deliveries: &[Delivery<Self::Command>],
    ) -> Result<Vec<Outcome<Self::Result>>, Failure> {
        let series = self.lock_series(tx).await?;
        let payments = select_payments(tx, deliveries).await?;
        if payments.values().any(|payment| self.financial_year(payment.now) != series.financial_year) {
            // Midnight passed while the lock was waited for: these belong into the new year's series.
            return Err(Failure::Race);
        }
        let drafts = self.draw_up(&series, deliveries, &payments);
        if !drafts.is_empty() {
            advance(tx, &series, drafts.len()).await?;
            self.insert_invoices(tx, &series, &drafts, &payments).await?;
            insert_lines(tx, &drafts, &payments).await?;
            let entries: Vec<AuditEntry> = drafts.iter().map(|draft| audit_entry(draft, &payments)).collect();
            audit::record(tx, &entries).await?;
        }
        let issued: HashMap<Uuid, &Draft> = drafts.iter().map(|draft| (draft.payment_id, draft)).collect();
        Ok(deliveries.iter().map(|delivery| outcome(&delivery.command, &payments, &issued)).collect())
    }

    fn follow_ups(&self, _: &Delivery<Self::Command>, outcome: &Outcome<Self::Result>) -> Vec<FollowUp> {
        match &outcome.verdict {
            contracts::Verdict::Succeeded(invoice) => {
                vec![FollowUp::new("pdf", RenderInvoice { invoice_id: invoice.invoice_id })]
            }
            contracts::Verdict::Rejected(_) => Vec::new(),
        }
    }
}

#[derive(Debug)]
struct Series {
    id: Uuid,
    financial_year: String,
    prefix: String,
    next_seq: i64,
    /// The time of the look-up; the lock may have come later.
    now: DateTime<Utc>,
}

#[derive(Debug)]
struct Draft {
    id: Uuid,
    seq: i64,
    number: String,
    operation_id: Uuid,
    payment_id: Uuid,
    amounts: Amounts,
}

fn outcome(
    command: &IssueInvoice,
    payments: &PaymentsToInvoice,
    issued: &HashMap<Uuid, &Draft>,
) -> Outcome<IssuedInvoice> {
    let Some(payment) = payments.get(&command.payment_id) else {
        return Outcome::rejected(ProblemType::PaymentNotFound);
    };
    let new = issued.get(&command.payment_id).map(|draft| IssuedInvoice {
        invoice_id: draft.id,
        number: draft.number.clone(),
        total: draft.amounts.total,
        tax: draft.amounts.tax,
        currency: payment.currency.clone(),
    });
    match new.or_else(|| payment.existing()) {
        Some(invoice) => Outcome::succeeded(invoice),
        None => Outcome::rejected(Problem::new(ProblemType::NothingToInvoice)),
    }
}

async fn lock_all_series(tx: &mut PgConnection) -> Result<Vec<Series>, Failure> {
    let locked = sqlx::query_as!(
        Series,
        r#"SELECT id, financial_year, prefix, next_seq, clock_timestamp() AS "now!"
             FROM invoice_series
            WHERE kind = 'invoice'
            ORDER BY financial_year
              FOR UPDATE"#,
    )
    .fetch_all(&mut *tx)
    .await?;
    Ok(locked)
}

async fn advance(tx: &mut PgConnection, series: &Series, by: usize) -> Result<(), Failure> {
    let by = i64::try_from(by).expect("deliveries settled together are few");
    sqlx::query!("UPDATE invoice_series SET next_seq = next_seq + $2 WHERE id = $1", series.id, by)
        .execute(&mut *tx)
        .await?;
    Ok(())
}

impl IssueInvoiceHandler {
    async fn insert_invoices(
        &self,
        tx: &mut PgConnection,
        series: &Series,
        drafts: &[Draft],
        payments: &PaymentsToInvoice,
    ) -> Result<(), Failure> {
        let mut rows = InvoiceRows::default();
        for draft in drafts {
            rows.push(draft, &payments[&draft.payment_id]);
        }
        let issued_at = payments[&drafts[0].payment_id].now;
        sqlx::query!(
            "INSERT INTO invoices (id, kind, series_id, seq, number, payment_id, registration_id, student_id, issue_date,
                                   supplier, recipient, currency, subtotal, discount, tax, rounding, total, issued_at,
                                   operation_id)
             SELECT id, 'invoice', $1, seq, number, payment_id, registration_id, student_id, $2,
                    $3, recipient, currency, subtotal, discount, tax, rounding, total, $4,
                    operation_id
               FROM UNNEST($5::uuid[], $6::bigint[], $7::text[], $8::uuid[], $9::uuid[], $10::uuid[], $11::jsonb[],
                           $12::text[], $13::numeric[], $14::numeric[], $15::numeric[], $16::numeric[], $17::numeric[],
                           $18::uuid[])
                 AS new (id, seq, number, payment_id, registration_id, student_id, recipient,
                         currency, subtotal, discount, tax, rounding, total,
                         operation_id)",
            series.id,
            financial_year::local_date(issued_at, self.institute.time_zone.0),
            self.supplier,
            issued_at,
            &rows.ids,
            &rows.seqs,
            &rows.numbers,
            &rows.payment_ids,
            &rows.registration_ids,
            &rows.student_ids,
            &rows.recipients,
            &rows.currencies,
            &rows.subtotals,
            &rows.discounts,
            &rows.taxes,
            &rows.roundings,
            &rows.totals,
            &rows.operation_ids,
        )
        .execute(&mut *tx)
        .await?;
        Ok(())
    }
}

#[derive(Default)]
struct InvoiceRows {
    ids: Vec<Uuid>,
    seqs: Vec<i64>,
    numbers: Vec<String>,
    payment_ids: Vec<Uuid>,
    registration_ids: Vec<Uuid>,
    student_ids: Vec<Uuid>,
    recipients: Vec<Value>,
    currencies: Vec<String>,
    subtotals: Vec<Decimal>,
    discounts: Vec<Decimal>,
    taxes: Vec<Decimal>,
    roundings: Vec<Decimal>,
    totals: Vec<Decimal>,
    operation_ids: Vec<Uuid>,
}

impl InvoiceRows {
    fn push(&mut self, draft: &Draft, payment: &PaymentToInvoice) {
        self.ids.push(draft.id);
        self.seqs.push(draft.seq);
        self.numbers.push(draft.number.clone());
        self.payment_ids.push(payment.id);
        self.registration_ids.push(payment.registration_id);
        self.student_ids.push(payment.student_id);
        self.recipients.push(payment.recipient.clone());
        self.currencies.push(payment.currency.clone());
        self.subtotals.push(draft.amounts.subtotal);
        self.discounts.push(draft.amounts.discount);
        self.taxes.push(draft.amounts.tax);
        self.roundings.push(draft.amounts.rounding);
        self.totals.push(draft.amounts.total);
        self.operation_ids.push(draft.operation_id);
    }
}

async fn insert_lines(tx: &mut PgConnection, drafts: &[Draft], payments: &PaymentsToInvoice) -> Result<(), Failure> {
    let ids: Vec<Uuid> = drafts.iter().map(|_| ids::new_id()).collect();
    let invoice_ids: Vec<Uuid> = drafts.iter().map(|draft| draft.id).collect();
    let descriptions: Vec<String> =
        drafts.iter().map(|draft| payments[&draft.payment_id].description.clone()).collect();
    let prices: Vec<Decimal> = drafts.iter().map(|draft| draft.amounts.subtotal).collect();
    let tax_rates: Vec<Decimal> = drafts.iter().map(|draft| payments[&draft.payment_id].tax_rate).collect();
    let taxes: Vec<Decimal> = drafts.iter().map(|draft| draft.amounts.tax).collect();
    sqlx::query!(
        "INSERT INTO invoice_lines (id, invoice_id, position, description, quantity, unit_price, amount, tax_rate, tax)
         SELECT id, invoice_id, 1, description, 1, price, price, tax_rate, tax
           FROM UNNEST($1::uuid[], $2::uuid[], $3::text[], $4::numeric[], $5::numeric[], $6::numeric[])
             AS new (id, invoice_id, description, price, tax_rate, tax)",
        &ids,
        &invoice_ids,
        &descriptions,
        &prices,
        &tax_rates,
        &taxes,
    )
    .execute(&mut *tx)
    .await?;
    Ok(())
}

fn audit_entry(draft: &Draft, payments: &PaymentsToInvoice) -> AuditEntry {
    let currency = &payments[&draft.payment_id].currency;
    let (total, tax) = (draft.amounts.total, draft.amounts.tax);
    let after = json!({
        "number": draft.number, "payment_id": draft.payment_id, "total": total, "tax": tax, "currency": currency,
    });
    AuditEntry {
        actor: Actor::Principal(Principal::System),
        action: "invoice.issued",
        entity_type: "invoice",
        entity_id: draft.id,
        before: None,
        after: Some(after),
        operation_id: Some(draft.operation_id),
    }
}
