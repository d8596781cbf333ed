-- The rules that must hold once everything is settled: one row for each, with the number of rows that break it.
-- Three tables hold the responses that clients got, and are empty where loadtest/check was given no log: `answered`
-- the operations that were answered 202, `reported` the states that operations had in responses, `refused` the bank
-- references of requests that got a 4xx. `mailed` is the mailbox of the development mail server, empty without
-- CHECK_MAILBOX=1.

WITH seats AS (
    SELECT batch_id,
           count(*) FILTER (WHERE status IN ('seat_held', 'payment_submitted', 'confirmed')) AS taken,
           count(*) FILTER (WHERE status = 'waitlisted') AS waiting
      FROM student_registrations
     GROUP BY batch_id
), money AS (
    SELECT registration_id, sum(amount - refunded) AS approved
      FROM payments
     WHERE status IN ('approved', 'refund_pending', 'refunded')
     GROUP BY registration_id
), series AS (
    SELECT invoice_series.id, next_seq, count(seq) AS issued, coalesce(max(seq), 0) AS last
      FROM invoice_series LEFT JOIN invoices ON series_id = invoice_series.id
     GROUP BY invoice_series.id
), queues AS (
    SELECT batch_id, count(*) AS places, count(DISTINCT waitlist_seq) AS numbers, max(waitlist_seq) AS last
      FROM student_registrations
     WHERE waitlist_seq IS NOT NULL
     GROUP BY batch_id
), effects AS (
    SELECT operation_id FROM payments
    UNION ALL
    SELECT operation_id FROM student_registrations
    UNION ALL
    SELECT operation_id FROM invoices WHERE kind = 'invoice'
), settled AS (
    -- A visitor who is registered already gets the same answer as a new one, and it has no effect.
    SELECT operations.kind, state,
           coalesce(convert_from(memo, 'UTF8')::jsonb ->> 'repeated' = 'true', false) AS without_effect,
           count(effects.operation_id) AS effects
      FROM operations LEFT JOIN effects ON operation_id = id
     WHERE operations.kind IN ('payment.submit.v1', 'registration.submit.v1', 'invoice.issue.v1')
     GROUP BY id
)
SELECT 'no course batch is over its capacity' AS rule,
       (SELECT count(*) FROM batches LEFT JOIN seats ON batch_id = batches.id
         WHERE coalesce(taken, 0) > capacity OR coalesce(waiting, 0) > waitlist_capacity) AS broken
UNION ALL
SELECT 'seats_taken is the number of held and confirmed seats',
       (SELECT count(*) FROM batches LEFT JOIN seats ON batch_id = batches.id WHERE seats_taken <> coalesce(taken, 0))
UNION ALL
SELECT 'waitlist_taken is the number of waitlisted registrations',
       (SELECT count(*) FROM batches LEFT JOIN seats ON batch_id = batches.id WHERE waitlist_taken <> coalesce(waiting, 0))
UNION ALL
SELECT 'no registration is waitlisted while a seat is free',
       (SELECT count(*) FROM batches JOIN seats ON batch_id = batches.id
         WHERE taken < capacity AND waiting > 0 AND status = 'open')
UNION ALL
SELECT 'waitlist numbers are contiguous',
       (SELECT count(*) FROM batches LEFT JOIN queues ON batch_id = batches.id
         WHERE coalesce(places, 0) <> coalesce(last, 0) OR numbers <> places OR next_waitlist_seq <> coalesce(last, 0) + 1)
UNION ALL
SELECT 'one active registration for each student and course batch',
       (SELECT count(*) FROM (SELECT FROM student_registrations
                               WHERE status NOT IN ('expired', 'cancelled', 'rejected')
                               GROUP BY student_id, batch_id HAVING count(*) > 1) AS doubled)
UNION ALL
SELECT 'one enrollment for each student and course batch',
       (SELECT count(*) FROM (SELECT FROM enrollments GROUP BY student_id, batch_id HAVING count(*) > 1) AS doubled)
UNION ALL
SELECT 'every confirmed registration is enrolled',
       (SELECT count(*) FROM student_registrations AS r
         WHERE status = 'confirmed'
           AND NOT EXISTS (SELECT FROM enrollments AS e WHERE e.student_id = r.student_id AND e.batch_id = r.batch_id))
UNION ALL
SELECT 'every enrollment has a confirmed registration',
       (SELECT count(*) FROM enrollments AS e
         WHERE status IN ('active', 'suspended')
           AND NOT EXISTS (SELECT FROM student_registrations AS r
                            WHERE r.student_id = e.student_id AND r.batch_id = e.batch_id AND r.status = 'confirmed'))
UNION ALL
SELECT 'no bank reference is used by two live payments',
       (SELECT count(*) FROM (SELECT FROM payments WHERE status NOT IN ('rejected', 'cancelled')
                               GROUP BY transaction_ref HAVING count(*) > 1) AS doubled)
UNION ALL
SELECT 'amount_paid is the sum of the approved payments',
       (SELECT count(*) FROM student_registrations AS r LEFT JOIN money ON registration_id = r.id
         WHERE amount_paid <> coalesce(approved, 0))
UNION ALL
SELECT 'one invoice for each approved payment',
       (SELECT count(*) FROM payments AS p
         WHERE (SELECT count(*) FROM invoices WHERE payment_id = p.id AND kind = 'invoice')
               <> CASE WHEN status IN ('approved', 'refund_pending', 'refunded') THEN 1 ELSE 0 END)
UNION ALL
SELECT 'the total of an invoice is the amount of its payment',
       (SELECT count(*) FROM invoices AS i JOIN payments AS p ON p.id = payment_id WHERE kind = 'invoice' AND total <> amount)
UNION ALL
SELECT 'invoice numbers are contiguous',
       (SELECT count(*) FROM series WHERE issued <> last OR next_seq <> last + 1)
UNION ALL
SELECT 'every invoice has its PDF', (SELECT count(*) FROM invoices WHERE pdf_file_id IS NULL)
UNION ALL
SELECT 'one audit row for each decision',
       (SELECT count(*) FROM payments AS p
         WHERE reviewed_at IS NOT NULL
           AND (SELECT count(*) FROM audit_logs
                 WHERE entity_type = 'payment' AND entity_id = p.id AND action IN ('payment.approve', 'payment.reject')) <> 1)
UNION ALL
SELECT 'one mail for each dedupe key',
       (SELECT count(*) FROM (SELECT FROM email_logs GROUP BY dedupe_key HAVING count(*) > 1) AS doubled)
UNION ALL
SELECT 'every mail is sent', (SELECT count(*) FROM email_logs WHERE status NOT IN ('sent', 'suppressed'))
UNION ALL
SELECT 'no mail arrived twice',
       (SELECT count(*) FROM (SELECT FROM mailed GROUP BY message_id HAVING count(*) > 1) AS doubled)
UNION ALL
SELECT 'every sent mail has arrived',
       -- The mailbox may have been emptied after the first mails.
       (SELECT count(*) FROM email_logs
         WHERE status = 'sent' AND sent_at > (SELECT min(received_at) + interval '1 second' FROM mailed)
           AND NOT EXISTS (SELECT FROM mailed WHERE mailed.message_id = trim(email_logs.message_id, '<>')))
UNION ALL
SELECT 'every registration has its mail',
       (SELECT count(*) FROM student_registrations AS r JOIN operations AS o ON o.id = r.operation_id
         WHERE o.kind = 'registration.submit.v1'
           AND NOT EXISTS (SELECT FROM email_logs
                            WHERE dedupe_key IN ('seat_held:' || r.id, 'waitlisted:' || r.id, 'registration_received:' || r.id)))
UNION ALL
SELECT 'every payment has its mail',
       (SELECT count(*) FROM payments AS p JOIN operations AS o ON o.id = p.operation_id
         WHERE NOT EXISTS (SELECT FROM email_logs WHERE dedupe_key = 'payment_received:' || p.id))
UNION ALL
SELECT 'every approved payment has its mail',
       (SELECT count(*) FROM payments AS p JOIN invoices AS i ON i.payment_id = p.id AND i.kind = 'invoice'
         WHERE NOT EXISTS (SELECT FROM email_logs WHERE dedupe_key = 'payment_approved:' || p.id))
UNION ALL
SELECT 'every payment has its notification, once',
       (SELECT count(*) FROM payments AS p JOIN operations AS o ON o.id = p.operation_id
         WHERE (SELECT count(*) FROM notifications
                 WHERE user_id = p.student_id AND dedupe_key = 'payment_received:' || p.id) <> 1)
UNION ALL
SELECT 'a succeeded operation has one effect',
       (SELECT count(*) FROM settled WHERE state = 'succeeded' AND NOT without_effect AND effects <> 1)
UNION ALL
SELECT 'an operation without success has no effect',
       (SELECT count(*) FROM settled WHERE (state <> 'succeeded' OR without_effect) AND effects > 0)
UNION ALL
SELECT 'every answered operation is settled',
       (SELECT count(*) FROM answered LEFT JOIN operations USING (id) WHERE operations.id IS NULL)
UNION ALL
SELECT 'no answered operation failed',
       (SELECT count(*) FROM answered JOIN operations USING (id) WHERE state = 'failed')
UNION ALL
SELECT 'clients were shown the settled state',
       (SELECT count(*) FROM reported LEFT JOIN operations USING (id) WHERE reported.state IS DISTINCT FROM operations.state)
UNION ALL
SELECT 'no refused request has a payment',
       (SELECT count(*) FROM refused JOIN payments
            ON transaction_ref = upper(regexp_replace(reference, '[[:space:][:punct:]]', '', 'g')))
UNION ALL
SELECT 'no dead letter is parked', (SELECT count(*) FROM dead_letters WHERE state = 'parked');
