-- What a user keeps besides transactions. Every list is by user and newest day first.

CREATE TABLE schedule_items (
    id         uuid        PRIMARY KEY,
    user_id    uuid        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    date       date        NOT NULL CHECK (date BETWEEN '0001-01-01' AND '9999-12-31'),
    title      text        NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    start_time time        NOT NULL,
    end_time   time        NOT NULL,
    category   text        NOT NULL CHECK (category IN ('Work', 'Exercise', 'Meal', 'Sleep', 'Personal', 'Social', 'Other')),
    emoji      text        CHECK (length(emoji) BETWEEN 1 AND 16),
    position   integer     NOT NULL DEFAULT 0 CHECK (position BETWEEN 0 AND 100000),
    is_active  boolean     NOT NULL DEFAULT true,
    recurrence text        CHECK (recurrence IN ('daily', 'weekdays', 'weekends')),
    color      text        CHECK (color ~ '^#[0-9A-Fa-f]{6}$'),
    created_at timestamptz NOT NULL DEFAULT now(),
    updated_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX schedule_items_list ON schedule_items (user_id, date DESC, id DESC);
CREATE TRIGGER schedule_items_updated_at BEFORE UPDATE ON schedule_items
    FOR EACH ROW EXECUTE FUNCTION set_updated_at();

CREATE TABLE workouts (
    id               uuid        PRIMARY KEY,
    user_id          uuid        NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    date             date        NOT NULL CHECK (date BETWEEN '0001-01-01' AND '9999-12-31'),
    title            text        NOT NULL CHECK (length(title) BETWEEN 1 AND 200),
    type             text        NOT NULL CHECK (type IN ('strength', 'cardio', 'flexibility', 'sports')),
    duration_minutes integer     NOT NULL CHECK (duration_minutes BETWEEN 1 AND 1440),
    exercises        jsonb       NOT NULL DEFAULT '[]' CHECK (jsonb_typeof(exercises) = 'array'),
    notes            text        CHECK (length(notes) <= 2000),
    created_at       timestamptz NOT NULL DEFAULT now(),
    updated_at       timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX workouts_list ON workouts (user_id, date DESC, id DESC);
CREATE TRIGGER workouts_updated_at BEFORE UPDATE ON workouts
    FOR EACH ROW EXECUTE FUNCTION set_updated_at();

-- Kilocalories and grams.
CREATE TABLE food_entries (
    id             uuid          PRIMARY KEY,
    user_id        uuid          NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    date           date          NOT NULL CHECK (date BETWEEN '0001-01-01' AND '9999-12-31'),
    name           text          NOT NULL CHECK (length(name) BETWEEN 1 AND 200),
    calories       numeric(8, 2) NOT NULL CHECK (calories BETWEEN 0 AND 100000),
    protein        numeric(8, 2) NOT NULL DEFAULT 0 CHECK (protein BETWEEN 0 AND 100000),
    carbs          numeric(8, 2) NOT NULL DEFAULT 0 CHECK (carbs BETWEEN 0 AND 100000),
    fats           numeric(8, 2) NOT NULL DEFAULT 0 CHECK (fats BETWEEN 0 AND 100000),
    portion_amount numeric(8, 2) CHECK (portion_amount > 0 AND portion_amount <= 100000),
    portion_unit   text          CHECK (length(portion_unit) BETWEEN 1 AND 20),
    start_time     time,
    end_time       time,
    created_at     timestamptz   NOT NULL DEFAULT now(),
    updated_at     timestamptz   NOT NULL DEFAULT now()
);
CREATE INDEX food_entries_list ON food_entries (user_id, date DESC, id DESC);
CREATE TRIGGER food_entries_updated_at BEFORE UPDATE ON food_entries
    FOR EACH ROW EXECUTE FUNCTION set_updated_at();

CREATE TABLE daily_check_ins (
    id          uuid          PRIMARY KEY,
    user_id     uuid          NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    date        date          NOT NULL CHECK (date BETWEEN '0001-01-01' AND '9999-12-31'),
    sleep_hours numeric(4, 2) NOT NULL CHECK (sleep_hours BETWEEN 0 AND 24),
    created_at  timestamptz   NOT NULL DEFAULT now(),
    updated_at  timestamptz   NOT NULL DEFAULT now(),
    CONSTRAINT daily_check_ins_one_per_day UNIQUE (user_id, date)
);
CREATE INDEX daily_check_ins_list ON daily_check_ins (user_id, date DESC, id DESC);
CREATE TRIGGER daily_check_ins_updated_at BEFORE UPDATE ON daily_check_ins
    FOR EACH ROW EXECUTE FUNCTION set_updated_at();

CREATE TABLE goals (
    id         uuid           PRIMARY KEY,
    user_id    uuid           NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    type       text           NOT NULL CHECK (type IN ('calories', 'workouts', 'savings')),
    target     numeric(14, 2) NOT NULL CHECK (target > 0),
    period     text           NOT NULL CHECK (period IN ('daily', 'weekly', 'monthly', 'yearly')),
    created_at timestamptz    NOT NULL DEFAULT now(),
    updated_at timestamptz    NOT NULL DEFAULT now()
);
CREATE INDEX goals_list ON goals (user_id, id DESC);
CREATE TRIGGER goals_updated_at BEFORE UPDATE ON goals
    FOR EACH ROW EXECUTE FUNCTION set_updated_at();
