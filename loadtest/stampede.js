// Everybody wants the same batch: all VUs fire within FIRE_SECONDS of one instant, each ends with a 202 and learns
// what came of it. Nobody uses a second key, so that the seats and the places on the waitlist can be counted to the
// last one.
//
// Settings beside those of lib/: WAIT_SECONDS (10) before the instant, FIRE_SECONDS (2), SEATS and WAITLIST of the
// batch.
import exec from 'k6/execution';
import { check, sleep } from 'k6';
import { askForSeat, batches, learnOfSeat, outcomes, person, vus } from './lib/people.js';
import { countFromZero, read, sleepUntil, thresholds } from './lib/client.js';

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
  countFromZero(...Object.values(outcomes));
  return { startAt: Date.now() + waitSeconds * 1000 };
}

export function student({ startAt }) {
  const who = person(exec.scenario.iterationInTest, vus);
  sleepUntil(startAt + Math.random() * fireSeconds * 1000);
  learnOfSeat(who, [askForSeat(who, batches[0])]);
}

export function teardown() {
  // The gateways' caches are a second old.
  sleep(3);
  const left = read(`/v1/batches/${batches[0]}/availability`, { name: 'GET /v1/batches/{id}/availability' });
  check(left, { 'no seat and no place is left': (r) => r && r.json('seats_left') === 0 && r.json('waitlist_left') === 0 });
}
