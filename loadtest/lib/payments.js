// How a student pays for a seat, with the mistakes that people make, and how two accountants work the list off.
//
// Of the payments 1 % are malformed, 0.5 % bear another student's reference, 1 % the same student's again; 1 % of the
// approvals are clicked by both accountants. In a small run that would be none, so it is at least about REPEATS_MIN.
import { check, sleep } from 'k6';
import { Counter, Trend } from 'k6/metrics';
import { clumsily, command, commands, learn, read, reason, refusedAtOnce, share, together } from './client.js';
import { accountants, run } from './people.js';

const PAY = 'POST /v1/payments';
const DECIDE = 'POST /v1/payments/decisions';
const DECISIONS_MAX = 500;
const REPEATS_MIN = 3;

export const played = {
  payments: new Counter('payments_made'),
  malformed: new Counter('payments_malformed'),
  foreign: new Counter('payments_with_a_foreign_reference'),
  sameAgain: new Counter('payments_with_the_same_reference_again'),
  approvals: new Counter('approvals_sent'),
  bothApprove: new Counter('approvals_clicked_by_two'),
};
const invoiceMs = new Trend('told_to_invoice_ms', true);

// `part` of `all`, yet enough that it is played at all.
function atLeast(part, all) {
  return Math.max(part, REPEATS_MIN / Math.max(all, REPEATS_MIN));
}

function claim(n, seat, more) {
  const { registration_id, amount_due: amount, currency } = seat;
  return { registration_id, method: 'bank_transfer', amount, currency, transaction_id: `UTR-${run}-${n}`, ...more };
}

// Pays for a seat in full; `payers` is about how many do, `foreignReference` somebody else's that is live.
export function pay(n, token, seat, { payers, foreignReference }) {
  const asked = (word) => ({ name: PAY, token, key: `pay-${run}-${n}-${word}` });
  const chance = (part) => share(atLeast(part, payers));
  if (chance(0.01)) payMalformed(n, seat, asked('malformed'));
  if (foreignReference && chance(0.005)) {
    played.foreign.add(1);
    const foreign = claim(n, seat, { transaction_id: foreignReference });
    const told = learn(command('/v1/payments', foreign, asked('foreign')), token);
    check(told, { "another student's reference is refused": (o) => reason(o) === 'duplicate-reference' });
  }
  if (chance(0.01)) return payTwiceWithOneReference(n, token, seat, asked);
  if (share(0.05)) return payAndReload(n, token, seat, asked);
  const told = learn(clumsily('/v1/payments', claim(n, seat), asked('first')), token);
  return paid(told);
}

function paid(told) {
  check(told, { 'a payment is taken': (o) => o.state === 'succeeded' });
  if (told.state !== 'succeeded') return null;
  played.payments.add(1);
  return told.result.payment_id;
}

function payMalformed(n, seat, asked) {
  played.malformed.add(1);
  const reference = `BAD-${run}-${n}`;
  const good = claim(n, seat, { transaction_id: reference });
  const bad = [
    JSON.stringify({ ...good, amount: '-1.00' }),
    JSON.stringify({ ...good, amount: '1.005' }),
    JSON.stringify({ ...good, currency: 'rupees' }),
    JSON.stringify({ ...good, student_id: seat.registration_id }),
    JSON.stringify(good).slice(0, -1),
  ];
  refusedAtOnce('/v1/payments', bad[n % bad.length], asked, reference);
}

// Another key and the same reference, typed differently: one of the two counts.
function payAndReload(n, token, seat, asked) {
  const first = clumsily('/v1/payments', claim(n, seat), asked('first'));
  const second = command('/v1/payments', claim(n, seat, { transaction_id: ` utr ${run} ${n} ` }), asked('reloaded'));
  const told = [first, second].map((operation) => learn(operation, token));
  const taken = told.filter((operation) => operation.state === 'succeeded');
  check(taken, { 'a payment sent twice is taken once': (all) => all.length === 1 });
  return paid(taken[0] || told[0]);
}

// Half of it, then the other half under the same reference, which is refused, then under its own.
function payTwiceWithOneReference(n, token, seat, asked) {
  played.sameAgain.add(1);
  const total = Math.round(Number(seat.amount_due) * 100);
  const half = Math.floor(total / 2);
  const money = (paise) => (paise / 100).toFixed(2);
  const first = learn(command('/v1/payments', claim(n, seat, { amount: money(half) }), asked('half')), token);
  const rest = claim(n, seat, { amount: money(total - half) });
  const again = learn(command('/v1/payments', rest, asked('again')), token);
  check(again, { 'the same reference again is refused': (o) => reason(o) === 'duplicate-reference' });
  paid(learn(command('/v1/payments', { ...rest, transaction_id: `UTR-${run}-${n}-rest` }, asked('rest')), token));
  return paid(first);
}

// Looks for the invoice of a payment until it is there.
export function awaitInvoice(paymentId, token, seconds) {
  const began = Date.now();
  const there = () => {
    const list = read('/v1/invoices', { name: 'GET /v1/invoices', token });
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
    const page = read(`/v1/payments?status=submitted&limit=100${cursor}`, { name: 'GET /v1/payments', token });
    if (!page) break;
    items.push(...page.json('items'));
    const next = page.json('next_cursor');
    cursor = next ? `&cursor=${next}` : undefined;
  }
  return items.slice(0, DECISIONS_MAX).map((payment) => payment.id).filter((id) => !seen.has(id));
}

// One of two accountants: half of the list each, by the payment's id, and `both` of it clicked by both at the same
// moment. Works until `until`, and then as long as anything comes in; `payers` is about how many payments there will be.
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
    played.approvals.add(mine.length);
    mine.forEach((id) => seen.add(id));
    if (mine.length > 0) quietSince = Date.now();
    sleep(1);
  }
}

function approvals(ids) {
  return { items: ids.map((payment_id) => ({ payment_id, verdict: 'approve' })) };
}

// Two accountants click at once: one wins, the other is told.
function bothApprove(id, key) {
  played.bothApprove.add(1);
  const tokens = accountants.slice(0, 2).map((accountant) => accountant.access_token);
  const name = 'POST /v1/payments/{id}/approve';
  const clicks = together(tokens.map((token) => [`/v1/payments/${id}/approve`, {}, { name, token, key }]));
  const told = clicks.map((operation, n) => learn(operation, tokens[n]));
  const won = told.filter((operation) => operation.state === 'succeeded').length;
  const late = told.filter((operation) => reason(operation) === 'already-decided').length;
  check(null, { 'of two approvals one wins': () => won === 1, 'of two approvals the other is told': () => late === 1 });
}
