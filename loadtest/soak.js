// A moderate load for a long time: RATE (50) requests a second arrive, whether or not the earlier ones are answered.
// Half of them read the seats left, a quarter register, a quarter pay; accountants approve meanwhile. loadtest/play
// watches the memory of the processes.
//
// Settings in addition to those of lib/: RATE, DURATION_SECONDS (300). All STUDENTS have seats; there are as many of
// them as payments.
import exec from 'k6/execution';
import { check } from 'k6';
import { get, initialiseCounters, share, thresholds } from './lib/client.js';
import { anyBatch, awaitSeat, outcomes, requestSeat, students, visitor } from './lib/people.js';
import { approvePayments, awaitInvoice, counters, pay } from './lib/payments.js';

const rate = Number(__ENV.RATE || 50);
const seconds = Number(__ENV.DURATION_SECONDS || 300);
const duration = `${seconds}s`;
// A client that waits for a result occupies a VU; a tenth of the clients do.
const arrivals = { preAllocatedVUs: rate, maxVUs: rate * 10, timeUnit: '1s', duration, gracefulStop: '150s' };

export const options = {
  scenarios: {
    reads: { executor: 'constant-arrival-rate', exec: 'look', rate: Math.ceil(rate / 2), ...arrivals },
    registrations: { executor: 'constant-arrival-rate', exec: 'register', rate: Math.ceil(rate / 4), ...arrivals },
    payments: { executor: 'constant-arrival-rate', exec: 'payForSeat', rate: Math.ceil(rate / 4), ...arrivals },
    accountants: { executor: 'per-vu-iterations', exec: 'accountant', vus: 2, iterations: 1, maxDuration: '24h' },
  },
  summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max'],
  thresholds: {
    ...thresholds,
    dropped_iterations: ['count==0'],
    'iterations{scenario:reads}': [`count>=${Math.floor((rate / 2) * seconds * 0.95)}`],
    'iterations{scenario:registrations}': [`count>=${Math.floor((rate / 4) * seconds * 0.95)}`],
    'iterations{scenario:payments}': [`count>=${Math.floor((rate / 4) * seconds * 0.95)}`],
    payments_made: ['count>0'],
    approvals_sent: ['count>0'],
  },
};

export function setup() {
  initialiseCounters(...Object.values(outcomes), ...Object.values(counters));
}

export function look() {
  const name = 'GET /v1/batches/{id}/availability';
  const seats = get(`/v1/batches/${anyBatch()}/availability`, { name });
  check(seats, { 'the number of seats left is valid': (r) => r && r.json('seats_left') >= 0 });
}

// Only visitors: the students have seats already.
export function register() {
  const who = visitor(exec.scenario.iterationInTest);
  const operation = requestSeat(who, anyBatch());
  if (share(0.1)) awaitSeat(who, [operation]);
}

export function payForSeat() {
  const n = exec.scenario.iterationInTest;
  const student = students[n];
  if (!student) return;
  const token = student.tokens[0];
  const paymentId = pay(n, token, student, { payers: students.length });
  if (paymentId && share(0.05)) awaitInvoice(paymentId, token, 90);
}

export function accountant() {
  approvePayments(exec.scenario.iterationInTest, exec.scenario.startTime + seconds * 1000, students.length);
}
