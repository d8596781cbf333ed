-- notifications: what one user is told in the application. announcements: what is told to many, fanned out into them.

-- Its dedupe key is its command's inbox: no operations row.
CREATE TABLE notifications (
    id           uuid        CONSTRAINT notifications_pkey PRIMARY KEY,
    user_id      uuid        NOT NULL CONSTRAINT notifications_user_id_fkey REFERENCES users (id),
    type         text        NOT NULL,
    title        text        NOT NULL,
    body         text        NOT NULL,
    data         jsonb       NOT NULL DEFAULT '{}',
    read_at      timestamptz,
    dedupe_key   text        NOT NULL,
    operation_id uuid        NOT NULL,             -- the event that wrote it
    created_at   timestamptz NOT NULL DEFAULT now(),
    updated_at   timestamptz NOT NULL DEFAULT now(),
    CONSTRAINT notifications_user_dedupe_key UNIQUE (user_id, dedupe_key)
);

CREATE INDEX notifications_user_created_at_idx ON notifications (user_id, created_at DESC);
CREATE INDEX notifications_unread_idx ON notifications (user_id) WHERE read_at IS NULL;


CREATE TABLE announcements (
    id            uuid        CONSTRAINT announcements_pkey PRIMARY KEY,
    audience      text        NOT NULL,
    audience_role text        CONSTRAINT announcements_role_check CHECK (audience_role IN ('student', 'teacher', 'accountant', 'admin')),
    course_id     uuid        CONSTRAINT announcements_course_id_fkey REFERENCES courses (id),
    batch_id      uuid        CONSTRAINT announcements_batch_id_fkey REFERENCES batches (id),
    title         text        NOT NULL,
    body          text        NOT NULL,
    priority      text        NOT NULL DEFAULT 'normal'
                              CONSTRAINT announcements_priority_check CHECK (priority IN ('low', 'normal', 'high')),
    channels      text[]      NOT NULL DEFAULT '{in_app}'
                              CONSTRAINT announcements_channels_check CHECK (channels <@ '{in_app,email}' AND cardinality(channels) > 0),
    publish_at    timestamptz NOT NULL,
    expires_at    timestamptz,
    status        text        NOT NULL CONSTRAINT announcements_status_check
                              CHECK (status IN ('draft', 'scheduled', 'publishing', 'published', 'cancelled')),
    fanout_cursor uuid,                            -- the last user told; the next step starts after it
    created_by    uuid        NOT NULL CONSTRAINT announcements_created_by_fkey REFERENCES users (id),
    operation_id  uuid        NOT NULL,
    created_at    timestamptz NOT NULL DEFAULT now(),
    updated_at    timestamptz NOT NULL DEFAULT now(),
    deleted_at    timestamptz,
    CONSTRAINT announcements_expiry_check CHECK (expires_at > publish_at),
    CONSTRAINT announcements_audience_check CHECK (
        num_nonnulls(audience_role, course_id, batch_id) = CASE audience WHEN 'all' THEN 0 ELSE 1 END
        AND CASE audience
                WHEN 'all'    THEN true
                WHEN 'role'   THEN audience_role IS NOT NULL
                WHEN 'course' THEN course_id IS NOT NULL
                WHEN 'batch'  THEN batch_id IS NOT NULL
                ELSE false
            END)
);

CREATE INDEX announcements_status_publish_at_idx ON announcements (status, publish_at);
CREATE INDEX announcements_course_id_idx ON announcements (course_id) WHERE course_id IS NOT NULL;
CREATE INDEX announcements_batch_id_idx ON announcements (batch_id) WHERE batch_id IS NOT NULL;
CREATE INDEX announcements_created_by_idx ON announcements (created_by);

CREATE TRIGGER announcements_touch BEFORE UPDATE ON announcements
FOR EACH ROW EXECUTE FUNCTION touch_updated_at();
