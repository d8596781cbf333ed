// Payments of students, with the mistakes that people make, and the approvals of two accountants.
//
// 1 % of the payments are malformed, 0.5 % have another student's bank reference, 1 % repeat the student's own; 1 % of
// the approvals are sent by both accountants. So that a small run has each of these too, it has about REPEATS_MIN.
import { check, sleep } from 'k6';
import { Counter, Trend } from 'k6/metrics';
import {
  awaitResult, command, commands, get, reason, sendInvalid, sendTogether, sendWithRepeats, share,
} from './client.js';
import { accountants, run } from './people.js';

const PAY = 'POST /v1/payments';
const DECIDE = 'POST /v1/payments/decisions';
const DECISIONS_MAX = 500;
const REPEATS_MIN = 3;

export const counters = {
  payments: new Counter('payments_made'),
  malformed: new Counter('payments_malformed'),
  foreign: new Counter('payments_with_a_foreign_reference'),
  sameAgain: new Counter('payments_with_the_same_reference_again'),
  approvals: new Counter('approvals_sent'),
  bothApprove: new Counter('approvals_clicked_by_two'),
};
const invoiceMs = new Trend('told_to_invoice_ms', true);

// The probability `part`, raised so that about REPEATS_MIN of `all` are chosen.
function atLeast(part, all) {
  return Math.max(part, REPEATS_MIN / Math.max(all, REPEATS_MIN));
}

function claim(n, seat, more) {
  const { registration_id, amount_due: amount, currency } = seat;
  return { registration_id, method: 'bank_transfer', amount, currency, transaction_id: `UTR-${run}-${n}`, ...more };
}

// Pays for a seat in full; `payers` is roughly the number of students who pay, `foreignReference` the bank reference of
// another student's payment.
export function pay(n, token, seat, { payers, foreignReference }) {
  const request = (word) => ({ name: PAY, token, key: `pay-${run}-${n}-${word}` });
  const chance = (part) => share(atLeast(part, payers));
  if (chance(0.01)) payMalformed(n, seat, request('malformed'));
  if (foreignReference && chance(0.005)) {
    counters.foreign.add(1);
    const foreign = claim(n, seat, { transaction_id: foreignReference });
    const settled = awaitResult(command('/v1/payments', foreign, request('foreign')), token);
    check(settled, { "another student's reference is rejected": (o) => reason(o) === 'duplicate-reference' });
  }
  if (chance(0.01)) return payTwiceWithOneReference(n, token, seat, request);
  if (share(0.05)) return payAndReload(n, token, seat, request);
  const settled = awaitResult(sendWithRepeats('/v1/payments', claim(n, seat), request('first')), token);
  return paid(settled);
}

function paid(settled) {
  check(settled, { 'a payment succeeds': (o) => o.state === 'succeeded' });
  if (settled.state !== 'succeeded') return null;
  counters.payments.add(1);
  return settled.result.payment_id;
}

function payMalformed(n, seat, request) {
  counters.malformed.add(1);
  const reference = `BAD-${run}-${n}`;
  const good = claim(n, seat, { transaction_id: reference });
  const bad = [
    JSON.stringify({ ...good, amount: '-1.00' }),
    JSON.stringify({ ...good, amount: '1.005' }),
    JSON.stringify({ ...good, currency: 'rupees' }),
    JSON.stringify({ ...good, student_id: seat.registration_id }),
    JSON.stringify(good).slice(0, -1),
  ];
  sendInvalid('/v1/payments', bad[n % bad.length], request, reference);
}

// Pays again under another key with the same bank reference in another spelling: one of the two succeeds.
function payAndReload(n, token, seat, request) {
  const first = sendWithRepeats('/v1/payments', claim(n, seat), request('first'));
  const second = command('/v1/payments', claim(n, seat, { transaction_id: ` utr ${run} ${n} ` }), request('reloaded'));
  const settled = [first, second].map((operation) => awaitResult(operation, token));
  const taken = settled.filter((operation) => operation.state === 'succeeded');
  check(taken, { 'a payment sent twice succeeds once': (all) => all.length === 1 });
  return paid(taken[0] || settled[0]);
}

// Pays half, then the other half with the same bank reference, which is rejected, then with a reference of its own.
function payTwiceWithOneReference(n, token, seat, request) {
  counters.sameAgain.add(1);
  const total = Math.round(Number(seat.amount_due) * 100);
  const half = Math.floor(total / 2);
  const money = (paise) => (paise / 100).toFixed(2);
  const first = awaitResult(command('/v1/payments', claim(n, seat, { amount: money(half) }), request('half')), token);
  const rest = claim(n, seat, { amount: money(total - half) });
  const again = awaitResult(command('/v1/payments', rest, request('again')), token);
  check(again, { 'the same reference again is rejected': (o) => reason(o) === 'duplicate-reference' });
  const ownReference = { ...rest, transaction_id: `UTR-${run}-${n}-rest` };
  paid(awaitResult(command('/v1/payments', ownReference, request('rest')), token));
  return paid(first);
}

// Polls the invoices until the payment's is among them.
export function awaitInvoice(paymentId, token, seconds) {
  const began = Date.now();
  const there = () => {
    const list = get('/v1/invoices', { name: 'GET /v1/invoices', token });
    return list && list.json('items').some((invoice) => invoice.payment_id === paymentId);
  };
  let found = there();
  while (!found && Date.now() < began + seconds * 1000) {
    sleep(2);
    found = there();
  }
  check(found, { 'an approved payment has its invoice': Boolean });
  if (found) invoiceMs.add(Date.now() - began);
}

function submittedPayments(token, seen) {
  const items = [];
  let cursor = '';
  while (items.length < DECISIONS_MAX && cursor !== undefined) {
    const page = get(`/v1/payments?status=submitted&limit=100${cursor}`, { name: 'GET /v1/payments', token });
    if (!page) break;
    items.push(...page.json('items'));
    const next = page.json('next_cursor');
    cursor = next ? `&cursor=${next}` : undefined;
  }
  return items.slice(0, DECISIONS_MAX).map((payment) => payment.id).filter((id) => !seen.has(id));
}

// One of two accountants: each approves half of the payments, by id; the share `both` of 10,000 is approved by both at
// the same moment. Ends ten seconds after the last payment, not before `until`; `payers` is roughly the number of
// payments.
export function approvePayments(me, until, payers) {
  const token = accountants[me].access_token;
  const both = Math.ceil(atLeast(0.01, payers) * 10000);
  const number = (id) => parseInt(id.slice(-6), 16);
  const seen = new Set();
  let quietSince = Date.now();
  for (let round = 0; Date.now() < until || Date.now() < quietSince + 10000; round += 1) {
    const mine = submittedPayments(token, seen).filter((id) => number(id) % accountants.length === me);
    const key = (word) => `decide-${run}-${me}-${round}${word}`;
    const contested = mine.filter((id) => Math.floor(number(id) / 2) % 10000 < both);
    const plain = mine.filter((id) => !contested.includes(id));
    if (plain.length > 0) commands('/v1/payments/decisions', approvals(plain), { name: DECIDE, token, key: key('') });
    contested.forEach((id) => bothApprove(id, key(`-${id}`)));
    counters.approvals.add(mine.length);
    mine.forEach((id) => seen.add(id));
    if (mine.length > 0) quietSince = Date.now();
    sleep(1);
  }
}

function approvals(ids) {
  return { items: ids.map((payment_id) => ({ payment_id, verdict: 'approve' })) };
}

// Both accountants approve at the same moment: one succeeds, the other is rejected.
function bothApprove(id, key) {
  counters.bothApprove.add(1);
  const tokens = accountants.slice(0, 2).map((accountant) => accountant.access_token);
  const name = 'POST /v1/payments/{id}/approve';
  const clicks = sendTogether(tokens.map((token) => [`/v1/payments/${id}/approve`, {}, { name, token, key }]));
  const settled = clicks.map((operation, n) => awaitResult(operation, tokens[n]));
  const won = settled.filter((operation) => operation.state === 'succeeded').length;
  const late = settled.filter((operation) => reason(operation) === 'already-decided').length;
  check(null, {
    'of two approvals one succeeds': () => won === 1,
    'of two approvals the other is rejected': () => late === 1,
  });
}
