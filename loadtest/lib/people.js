// Who plays: students with tokens of two devices, visitors without an account, two accountants; and what they want.
//
// RUN: a word of this run, in every key, address and reference. STUDENTS: a file with an array of {student_id, tokens:
// [first device, second device]}, and {registration_id, amount_due, currency} of those who have a seat. ACCOUNTANTS: a
// file with an array of {access_token}. BATCHES: ids, with commas; the first is the hot one. VUS.
import { SharedArray } from 'k6/data';
import { check } from 'k6';
import { Counter } from 'k6/metrics';
import { clumsily, command, learn, reason, share, together } from './client.js';

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

// The n-th of all: the students are spread evenly among the visitors.
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

// Asks for a seat once, under one key; returns the operation.
export function askForSeat(who, batch_id) {
  const token = who.student && who.student.tokens[0];
  const key = `register-${run}-${who.n}`;
  return clumsily('/v1/registrations', registration(who, batch_id), { name: SEATS, token, key });
}

// The same wish again, under another key: 5 % reload the page, 5 % try it on a second device at the same moment.
export function askForSeatAgain(who, batch_id) {
  const body = registration(who, batch_id);
  const asked = (device, word) => {
    const token = who.student && who.student.tokens[device];
    return { name: SEATS, token, key: `register-${run}-${who.n}${word}` };
  };
  const dice = Math.random();
  if (dice < RELOAD_SHARE) {
    return [askForSeat(who, batch_id), command('/v1/registrations', body, asked(0, '-reloaded'))];
  }
  if (dice < RELOAD_SHARE + SECOND_DEVICE_SHARE) {
    return together([0, 1].map((device) => ['/v1/registrations', body, asked(device, device ? '-second' : '')]));
  }
  return [askForSeat(who, batch_id)];
}

// Learns what came of it, and returns the seat where there is one. A student gets one answer that is not "you have it
// already"; a visitor is never told whether the address is known, so a second wish of theirs sounds like a new one.
export function learnOfSeat(who, operations) {
  const token = who.student && who.student.tokens[0];
  const told = operations.map((operation) => learn(operation, token));
  const places = told.filter((operation) => operation.state === 'succeeded');
  const refusals = told.filter((operation) => operation.state !== 'succeeded').map(reason);
  const allowed = places.length > 0 && who.student ? ['already-registered', 'batch-full'] : ['batch-full'];
  check(null, {
    'a seat is held, waited for or refused as full': () => refusals.every((why) => allowed.includes(why)),
    'a student has one place in a batch': () => !who.student || places.length <= 1,
  });
  const outcome = places.length > 0 ? places[0].result.status : refusals[0];
  if (outcomes[outcome]) outcomes[outcome].add(1);
  return outcome === 'seat_held' ? places[0].result : null;
}
