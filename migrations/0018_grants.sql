-- Who may do what. The gateway writes only what needs an answer now; money, seats and results are the workers'.
-- Neither can change or delete an audit row. A migration that adds a table adds its grants.

GRANT USAGE ON SCHEMA public TO registrar_gateway, registrar_workers;


-- The gateway reads.
GRANT SELECT ON
    users, user_profiles, sessions, user_tokens, audit_logs, files, courses, batches, student_registrations, payments,
    bank_statement_lines, invoices, invoice_lines, enrollments, attendance, study_materials, assignments,
    assignment_submissions, notifications, announcements, email_logs, job_runs, operations
TO registrar_gateway;

-- Not the events themselves: they hold whatever somebody sent.
GRANT SELECT (id, operation_id, pool, kind, error_class, error_text, attempts, first_failed_at, last_failed_at,
              state, decided_by, decided_at, created_at, updated_at)
ON dead_letters TO registrar_gateway;

-- The gateway signs in and signs out.
GRANT INSERT, UPDATE ON sessions, user_tokens TO registrar_gateway;
GRANT UPDATE (failed_logins, locked_until, last_login_at, password_hash, email_verified_at, status, updated_at)
ON users TO registrar_gateway;

-- The gateway serves the administrators' and the teachers' synchronous writes. Nothing is deleted but by deleted_at.
GRANT INSERT ON users, user_profiles, courses, study_materials, assignments, files, audit_logs TO registrar_gateway;
GRANT UPDATE ON user_profiles, courses, study_materials, assignments TO registrar_gateway;
GRANT UPDATE (email, phone, role, deleted_at) ON users TO registrar_gateway;
GRANT UPDATE (read_at, updated_at) ON notifications TO registrar_gateway;

-- Not the counters: seats are taken and freed by workers alone.
GRANT INSERT (id, course_id, code, name, instructor_id, mode, capacity, waitlist_capacity, start_date, end_date, opens_at,
              closes_at, confirm_minutes, hold_minutes, fee, deposit, requires_review, schedule, status)
ON batches TO registrar_gateway;
GRANT UPDATE (code, name, instructor_id, mode, capacity, waitlist_capacity, start_date, end_date, opens_at, closes_at,
              confirm_minutes, hold_minutes, fee, deposit, requires_review, schedule, status, updated_at, deleted_at)
ON batches TO registrar_gateway;


-- The workers settle commands.
GRANT SELECT, INSERT, UPDATE ON
    user_profiles, student_registrations, payments, bank_statement_lines, enrollments, attendance,
    assignment_submissions, announcements, job_runs
TO registrar_workers;
GRANT USAGE ON SEQUENCE registration_request_no_seq TO registrar_workers;

-- They create users, but never see or set a password or a refresh token.
GRANT SELECT (id, email, phone, role, status, email_verified_at, failed_logins, locked_until, last_login_at, operation_id,
              created_at, updated_at, deleted_at),
      INSERT (id, email, phone, role, status, email_verified_at, operation_id),
      UPDATE (phone, status, email_verified_at, operation_id, updated_at)
ON users TO registrar_workers;
GRANT SELECT (id, user_id, family_id, parent_id, ip, user_agent, expires_at, absolute_expires_at, rotated_at, revoked_at,
              created_at, updated_at),
      UPDATE (revoked_at, updated_at)
ON sessions TO registrar_workers;

GRANT SELECT ON courses, batches, study_materials, assignments TO registrar_workers;
GRANT UPDATE (seats_taken, waitlist_taken, next_waitlist_seq, status, updated_at) ON batches TO registrar_workers;
GRANT UPDATE (status, updated_at) ON assignments TO registrar_workers;

-- Issued invoices change in nothing else; the triggers hold that against the owner too.
GRANT SELECT, INSERT ON invoice_series, invoices, invoice_lines, audit_logs TO registrar_workers;
GRANT UPDATE (next_seq, updated_at) ON invoice_series TO registrar_workers;
GRANT UPDATE (pdf_file_id, status, updated_at) ON invoices TO registrar_workers;

-- They prune what has had its time.
GRANT SELECT, INSERT, UPDATE, DELETE ON
    operations, dead_letters, user_tokens, files, notifications, email_logs, email_suppressions
TO registrar_workers;
GRANT DELETE ON sessions TO registrar_workers;
