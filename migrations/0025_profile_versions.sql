-- The version of a profile, for If-Match: raised by edits of the user alone.

ALTER TABLE user_profiles ADD COLUMN version bigint NOT NULL DEFAULT 1;
