// All VUs register for the same course batch within FIRE_SECONDS of one start time, get a 202 and wait for the result.
// Each uses one key only, so that seats and waitlist places must be filled exactly.
//
// Settings in addition to those of lib/: WAIT_SECONDS (10) before the start, FIRE_SECONDS (2), SEATS and WAITLIST of
// the course batch.
import exec from 'k6/execution';
import { check, sleep } from 'k6';
import { awaitSeat, batches, outcomes, person, requestSeat, vus } from './lib/people.js';
import { get, initialiseCounters, sleepUntil, thresholds } from './lib/client.js';

const waitSeconds = Number(__ENV.WAIT_SECONDS || 10);
const fireSeconds = Number(__ENV.FIRE_SECONDS || 2);
const seats = Number(__ENV.SEATS);
const waitlist = Number(__ENV.WAITLIST);

export const options = {
  scenarios: {
    people: { executor: 'per-vu-iterations', exec: 'student', vus, iterations: 1, maxDuration: '15m' },
  },
  summaryTrendStats: ['med', 'p(95)', 'p(99)', 'max'],
  setupTimeout: '3m',
  thresholds: {
    ...thresholds,
    'iterations{scenario:people}': [`count==${vus}`],
    operations_learned: [`count==${vus}`],
    registrations_seated: [`count==${seats}`],
    registrations_waitlisted: [`count==${waitlist}`],
    registrations_refused_full: [`count==${vus - seats - waitlist}`],
  },
};

export function setup() {
  initialiseCounters(...Object.values(outcomes));
  return { startAt: Date.now() + waitSeconds * 1000 };
}

export function student({ startAt }) {
  const who = person(exec.scenario.iterationInTest, vus);
  sleepUntil(startAt + Math.random() * fireSeconds * 1000);
  awaitSeat(who, [requestSeat(who, batches[0])]);
}

export function teardown() {
  // The gateways cache the seats for up to a second.
  sleep(3);
  const left = get(`/v1/batches/${batches[0]}/availability`, { name: 'GET /v1/batches/{id}/availability' });
  check(left, {
    'no seat is left': (r) => r && r.json('seats_left') === 0,
    'no waitlist place is left': (r) => r && r.json('waitlist_left') === 0,
  });
}
