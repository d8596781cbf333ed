-- Indexes that no query uses, found by reading every query beside every index: each cost an entry a row, and some of them
-- kept rows from being rewritten in place. The only rows that are ever deleted are those of operations, sessions and
-- user_tokens, so that no foreign key needs an index for the rows that point to others. Whoever prunes files one day gives
-- the columns *_file_id their indexes back first.

DROP INDEX users_phone_idx;
-- One user's rows are few: what is unread among them is a filter of the index by user and time.
DROP INDEX notifications_unread_idx;
-- Redelivery and the unique key find what was not sent, no query does. Without these two, marking a mail as sent rewrites
-- its row in place.
DROP INDEX email_logs_unsent_idx, email_logs_failed_idx;
ALTER TABLE email_logs SET (fillfactor = 50);
-- The same for the invoice that gets its PDF.
DROP INDEX invoices_pdf_file_id_idx;
ALTER TABLE invoices SET (fillfactor = 50);
DROP INDEX payments_reviewed_by_idx, payments_refund_requested_by_idx, payments_refund_approved_by_idx,
           registrations_reviewed_by_idx, user_tokens_registration_id_idx;
-- A student's own payments are found by way of the student's registrations.
DROP INDEX payments_student_status_idx;

-- Roles are looked up to tell staff something; nobody tells all students at once.
CREATE INDEX users_staff_idx ON users (role) WHERE role <> 'student';
DROP INDEX users_role_status_idx;

-- Staff's lists in the order of their pages. What is rare has an index of its own, which the usual rows do not enter.
CREATE INDEX enrollments_batch_id_idx ON enrollments (batch_id, id);
DROP INDEX enrollments_batch_status_idx;
CREATE INDEX enrollments_ended_idx ON enrollments (status, id) WHERE status <> 'active';
CREATE INDEX invoices_credited_idx ON invoices (id) WHERE status = 'credited';

-- Foreign keys of tables that are hardly used yet: as above.
DROP INDEX attendance_marked_by_idx, courses_created_by_idx, study_materials_uploaded_by_idx, study_materials_file_id_idx,
           assignments_created_by_idx, submissions_graded_by_idx, submissions_file_id_idx, announcements_created_by_idx,
           files_owner_id_idx, bank_statement_lines_payment_id_idx, job_runs_input_file_id_idx, job_runs_output_file_id_idx;

-- Nothing filters or sorts by these columns: their statistics, the widest to gather, were most of what an automatic ANALYZE
-- of the tables that grow costs.
ALTER TABLE operations
    ALTER COLUMN fingerprint SET STATISTICS 0, ALTER COLUMN outcome SET STATISTICS 0, ALTER COLUMN memo SET STATISTICS 0,
    ALTER COLUMN subject SET STATISTICS 0, ALTER COLUMN parent_id SET STATISTICS 0, ALTER COLUMN accepted_at SET STATISTICS 0;
ALTER TABLE payments
    ALTER COLUMN transaction_id SET STATISTICS 0, ALTER COLUMN operation_id SET STATISTICS 0;
ALTER TABLE notifications
    ALTER COLUMN title SET STATISTICS 0, ALTER COLUMN body SET STATISTICS 0, ALTER COLUMN data SET STATISTICS 0,
    ALTER COLUMN operation_id SET STATISTICS 0;
ALTER TABLE student_registrations
    ALTER COLUMN answers SET STATISTICS 0, ALTER COLUMN operation_id SET STATISTICS 0;
ALTER TABLE invoices
    ALTER COLUMN supplier SET STATISTICS 0, ALTER COLUMN recipient SET STATISTICS 0, ALTER COLUMN operation_id SET STATISTICS 0;
ALTER TABLE email_logs
    ALTER COLUMN subject SET STATISTICS 0, ALTER COLUMN context SET STATISTICS 0, ALTER COLUMN event_id SET STATISTICS 0,
    ALTER COLUMN trace_id SET STATISTICS 0, ALTER COLUMN message_id SET STATISTICS 0, ALTER COLUMN last_error SET STATISTICS 0;
ALTER TABLE audit_logs
    ALTER COLUMN before SET STATISTICS 0, ALTER COLUMN after SET STATISTICS 0;
