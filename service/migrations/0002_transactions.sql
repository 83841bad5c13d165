CREATE TABLE transactions (
    id           uuid           PRIMARY KEY,
    user_id      uuid           NOT NULL REFERENCES users (id) ON DELETE CASCADE,
    type         text           NOT NULL,
    amount       numeric(14, 2) NOT NULL CHECK (amount > 0),
    currency     char(3)        NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    category     text           NOT NULL,
    date         date           NOT NULL CHECK (date BETWEEN '0001-01-01' AND '9999-12-31'),
    description  text           NOT NULL DEFAULT '' CHECK (length(description) <= 500),
    is_recurring boolean        NOT NULL DEFAULT false,
    created_at   timestamptz    NOT NULL DEFAULT now(),
    updated_at   timestamptz    NOT NULL DEFAULT now(),
    CONSTRAINT transactions_category CHECK (
        (type = 'income' AND category IN ('Salary', 'Freelance', 'Investment', 'Gift', 'Other'))
        OR (type = 'expense' AND category IN ('Food', 'Housing', 'Transportation', 'Entertainment',
                                              'Shopping', 'Healthcare', 'Education', 'Other'))
    )
);
-- Serves the list: newest day first, and the month filter.
CREATE INDEX transactions_list ON transactions (user_id, date DESC, id DESC);
CREATE TRIGGER transactions_updated_at BEFORE UPDATE ON transactions
    FOR EACH ROW EXECUTE FUNCTION set_updated_at();
