-- What every payment pays for, and nobody needs. loadtest/README.md has the experiment that led to it.

-- Each of these checks looks a user up and locks the row, which writes it. Users are never deleted, no role may; the insert
-- of a notification reads its user, and a payment's student is the student of its registration, which keeps its key.
ALTER TABLE notifications DROP CONSTRAINT notifications_user_id_fkey;
ALTER TABLE payments DROP CONSTRAINT payments_student_id_fkey;

-- Words and ids that only machines read: bytes are compared, whatever the locale of the database is.
ALTER TABLE operations
    ALTER COLUMN kind      TYPE text COLLATE "C",
    ALTER COLUMN principal TYPE text COLLATE "C",
    ALTER COLUMN state     TYPE text COLLATE "C",
    ALTER COLUMN subject   TYPE text COLLATE "C";
ALTER TABLE payments
    ALTER COLUMN status TYPE text COLLATE "C";
ALTER TABLE notifications
    ALTER COLUMN dedupe_key TYPE text COLLATE "C";
ALTER TABLE student_registrations
    ALTER COLUMN request_no TYPE text COLLATE "C",
    ALTER COLUMN status     TYPE text COLLATE "C";

-- Staff read what is in one state page by page, newest first: by id, which tells time (UUIDv7). Nothing asks by created_at.
CREATE INDEX payments_status_id_idx ON payments (status, id DESC);
DROP INDEX payments_status_created_at_idx;
