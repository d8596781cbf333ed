// The day a course batch opens. All VUs wait for one start time. 60 % of them poll the seats left until then and
// register within FIRE_SECONDS; the others register over ARRIVAL_SECONDS. Students who get a seat pay for it, two
// accountants approve the payments, some students wait for their invoice. loadtest/play prepares and checks it.
//
// Settings in addition to those of lib/: WAIT_SECONDS (15) before the start, FIRE_SECONDS (2), ARRIVAL_SECONDS (60),
// PAY_SECONDS (10), the longest pause before paying; SEATS, the number of all seats; PAYER, a file with a student who
// has a seat: other students reuse the bank reference of this student's payment.
import exec from 'k6/execution';
import { check, sleep } from 'k6';
import { Counter } from 'k6/metrics';
import { awaitResult, command, get, initialiseCounters, share, sleepUntil, thresholds } from './lib/client.js';
import { anyBatch, awaitSeat, outcomes, person, requestSeatRepeatedly, run, students, vus } from './lib/people.js';
import { approvePayments, awaitInvoice, counters, pay } from './lib/payments.js';

const waitSeconds = Number(__ENV.WAIT_SECONDS || 15);
const fireSeconds = Number(__ENV.FIRE_SECONDS || 2);
const arrivalSeconds = Number(__ENV.ARRIVAL_SECONDS || 60);
const paySeconds = Number(__ENV.PAY_SECONDS || 10);
const POLL_SECONDS = 5;
const WAITING_SHARE = 0.6;
const INVOICE_SHARE = 0.2;

const payer = JSON.parse(open(__ENV.PAYER));
const payers = Math.ceil((Number(__ENV.SEATS) * students.length) / vus);
const unchanged = new Counter('availability_304');

export const options = {
  scenarios: {
    people: { executor: 'per-vu-iterations', exec: 'student', vus, iterations: 1, maxDuration: '30m' },
    accountants: { executor: 'per-vu-iterations', exec: 'accountant', vus: 2, iterations: 1, maxDuration: '30m' },
  },
  summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max'],
  setupTimeout: '3m',
  thresholds: {
    ...thresholds,
    // An iteration that is cut off does not count.
    'iterations{scenario:people}': [`count==${vus}`],
    operations_accepted: [`count>=${vus}`],
    registrations_seated: ['count>0'],
    registrations_waitlisted: ['count>0'],
    registrations_refused_full: ['count>0'],
    payments_made: ['count>0'],
    approvals_sent: ['count>0'],
  },
};

// Runs once, before the VUs start. It makes the payment whose bank reference other students reuse.
export function setup() {
  initialiseCounters(unchanged, ...Object.values(outcomes), ...Object.values(counters));
  const [token] = payer.tokens;
  const { registration_id, amount_due: amount, currency } = payer;
  const reference = `UTR-${run}-known`;
  const body = { registration_id, method: 'upi', amount, currency, transaction_id: reference };
  const request = { name: 'POST /v1/payments', token, key: `pay-${run}-known` };
  const payment = awaitResult(command('/v1/payments', body, request), token);
  check(payment, { 'a payment succeeds': (o) => o.state === 'succeeded' });
  return { reference, startAt: Date.now() + waitSeconds * 1000 };
}

export function student({ reference, startAt }) {
  const n = exec.scenario.iterationInTest;
  const who = person(n, vus);
  const batch = anyBatch();
  if (share(WAITING_SHARE)) {
    watchSeats(batch, startAt);
    sleepUntil(startAt + Math.random() * fireSeconds * 1000);
  } else {
    sleepUntil(startAt + Math.random() * arrivalSeconds * 1000);
  }
  const seat = awaitSeat(who, requestSeatRepeatedly(who, batch));
  if (!seat || !who.student) return;
  sleep(Math.random() * paySeconds);
  const token = who.student.tokens[0];
  const paymentId = pay(n, token, seat, { payers, foreignReference: reference });
  if (paymentId && share(INVOICE_SHARE)) awaitInvoice(paymentId, token, 90);
}

// Polls every POLL_SECONDS, from a random moment on, until the start time.
function watchSeats(batch, until) {
  let etag;
  sleep(Math.random() * POLL_SECONDS);
  while (Date.now() < until) {
    const name = 'GET /v1/batches/{id}/availability';
    const seats = get(`/v1/batches/${batch}/availability`, { name, etag }, [200, 304]);
    if (seats && seats.status === 304) unchanged.add(1);
    if (seats && seats.status === 200) {
      etag = seats.headers.Etag;
      const { seats_left: left, capacity } = seats.json();
      check(left, { 'the number of seats left is valid': () => left >= 0 && left <= capacity });
    }
    sleep(Math.min(POLL_SECONDS, Math.max(0, (until - Date.now()) / 1000)));
  }
}

export function accountant({ startAt }) {
  sleepUntil(startAt);
  approvePayments(exec.scenario.iterationInTest, startAt + (arrivalSeconds + paySeconds + 5) * 1000, payers);
}
