-- How often work on a job was begun and neither ended nor given back, since it was submitted or put
-- back by an operator. Messages count too, but a message can be lost and made anew; this ends a job
-- that comes back for ever. A release without the column leaves it as it is.
ALTER TABLE voice_jobs ADD COLUMN attempts integer NOT NULL DEFAULT 0 CHECK (attempts >= 0);
