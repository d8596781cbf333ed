// The people: students with tokens for two devices, visitors without an account, two accountants; and their
// registrations.
//
// RUN: an id of this run, part of every key, address and bank reference. STUDENTS: a file with an array of {student_id,
// tokens: [first device, second device]}, and {registration_id, amount_due, currency} of students with a seat.
// ACCOUNTANTS: a file with an array of {access_token}. BATCHES: ids of course batches, with commas; 40 % of the people
// want the first. VUS.
import { SharedArray } from 'k6/data';
import { check } from 'k6';
import { Counter } from 'k6/metrics';
import { awaitResult, command, reason, sendTogether, sendWithRepeats, share } from './client.js';

export const run = __ENV.RUN;
export const vus = Number(__ENV.VUS);
export const batches = __ENV.BATCHES.split(',');
export const students = new SharedArray('students', () => JSON.parse(open(__ENV.STUDENTS)));
export const accountants = JSON.parse(open(__ENV.ACCOUNTANTS));

const SEATS = 'POST /v1/registrations';
const HOT_SHARE = 0.4;
const RELOAD_SHARE = 0.05;
const SECOND_DEVICE_SHARE = 0.05;

export const outcomes = {
  seat_held: new Counter('registrations_seated'),
  waitlisted: new Counter('registrations_waitlisted'),
  'batch-full': new Counter('registrations_refused_full'),
};

// The n-th of `all` people: students are spread evenly among visitors.
export function person(n, all) {
  const before = Math.floor((n * students.length) / all);
  const isStudent = Math.floor(((n + 1) * students.length) / all) > before;
  return { n, student: isStudent ? students[before] : null };
}

export const visitor = (n) => ({ n, student: null });

export function anyBatch() {
  if (share(HOT_SHARE) || batches.length === 1) return batches[0];
  return batches[1 + Math.floor(Math.random() * (batches.length - 1))];
}

function registration({ n, student }, batch_id) {
  const visitor = { email: `visitor-${run}-${n}@load.example.org`, full_name: `Visitor ${n}` };
  return student ? { batch_id } : { batch_id, ...visitor };
}

// Requests a seat under one key; returns the operation.
export function requestSeat(who, batch_id) {
  const token = who.student && who.student.tokens[0];
  const key = `register-${run}-${who.n}`;
  return sendWithRepeats('/v1/registrations', registration(who, batch_id), { name: SEATS, token, key });
}

// Requests a seat; 5 % do it again under another key after reloading the page, 5 % at the same moment on a second
// device.
export function requestSeatRepeatedly(who, batch_id) {
  const body = registration(who, batch_id);
  const request = (device, word) => {
    const token = who.student && who.student.tokens[device];
    return { name: SEATS, token, key: `register-${run}-${who.n}${word}` };
  };
  const dice = Math.random();
  if (dice < RELOAD_SHARE) {
    return [requestSeat(who, batch_id), command('/v1/registrations', body, request(0, '-reloaded'))];
  }
  if (dice < RELOAD_SHARE + SECOND_DEVICE_SHARE) {
    return sendTogether([0, 1].map((device) => ['/v1/registrations', body, request(device, device ? '-second' : '')]));
  }
  return [requestSeat(who, batch_id)];
}

// Waits for the results and returns the seat, if there is one. Of a student's requests one is not rejected as
// `already-registered`; a visitor must not learn whether an address is known, so a second request succeeds like the
// first.
export function awaitSeat(who, operations) {
  const token = who.student && who.student.tokens[0];
  const settled = operations.map((operation) => awaitResult(operation, token));
  const places = settled.filter((operation) => operation.state === 'succeeded');
  const refusals = settled.filter((operation) => operation.state !== 'succeeded').map(reason);
  const allowed = places.length > 0 && who.student ? ['already-registered', 'batch-full'] : ['batch-full'];
  check(null, {
    'a registration gets a place or is rejected as full': () => refusals.every((why) => allowed.includes(why)),
    'a student has one place in a batch': () => !who.student || places.length <= 1,
  });
  const outcome = places.length > 0 ? places[0].result.status : refusals[0];
  if (outcomes[outcome]) outcomes[outcome].add(1);
  return outcome === 'seat_held' ? places[0].result : null;
}
