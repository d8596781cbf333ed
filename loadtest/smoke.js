// A short mixed load with the repeated requests of real people: students pay, visitors register, accountants approve.
// loadtest/play prepares and checks it.
//
// Settings in addition to those of lib/: VISITORS (400). All STUDENTS have seats.
import exec from 'k6/execution';
import { initialiseCounters, share, thresholds } from './lib/client.js';
import { awaitSeat, batches, outcomes, requestSeat, students, visitor, vus } from './lib/people.js';
import { approvePayments, awaitInvoice, counters, pay } from './lib/payments.js';

const visitors = Number(__ENV.VISITORS || 400);

export const options = {
  scenarios: {
    payments: { executor: 'shared-iterations', exec: 'payForSeat', vus, iterations: students.length, maxDuration: '5m' },
    registrations: { executor: 'shared-iterations', exec: 'register', vus, iterations: visitors, maxDuration: '5m' },
    accountants: { executor: 'per-vu-iterations', exec: 'accountant', vus: 2, iterations: 1, maxDuration: '5m' },
  },
  summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max'],
  thresholds: {
    ...thresholds,
    operations_accepted: [`count>=${students.length + visitors}`],
    payments_made: [`count>=${students.length}`],
    approvals_sent: [`count>=${students.length}`],
  },
};

export function setup() {
  initialiseCounters(...Object.values(outcomes), ...Object.values(counters));
}

export function payForSeat() {
  const n = exec.scenario.iterationInTest;
  const token = students[n].tokens[0];
  const paymentId = pay(n, token, students[n], { payers: students.length });
  if (paymentId && share(0.1)) awaitInvoice(paymentId, token, 60);
}

export function register() {
  const who = visitor(exec.scenario.iterationInTest);
  const operation = requestSeat(who, batches[who.n % batches.length]);
  if (share(0.1)) awaitSeat(who, [operation]);
}

export function accountant() {
  approvePayments(exec.scenario.iterationInTest, Date.now() + 3000, students.length);
}
