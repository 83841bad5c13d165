-- One row per user who changed something; everybody else has the service's defaults.
CREATE TABLE settings (
    user_id           uuid        PRIMARY KEY REFERENCES users (id) ON DELETE CASCADE,
    currency          char(3)     NOT NULL CHECK (currency ~ '^[A-Z]{3}$'),
    date_format       text        NOT NULL CHECK (date_format IN ('YYYY-MM-DD', 'DD.MM.YYYY', 'DD/MM/YYYY', 'MM/DD/YYYY')),
    language          text        NOT NULL CHECK (length(language) BETWEEN 2 AND 35),
    first_day_of_week text        NOT NULL CHECK (first_day_of_week IN ('monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday')),
    time_zone         text        NOT NULL CHECK (length(time_zone) BETWEEN 1 AND 64),
    created_at        timestamptz NOT NULL DEFAULT now(),
    updated_at        timestamptz NOT NULL DEFAULT now()
);
CREATE TRIGGER settings_updated_at BEFORE UPDATE ON settings
    FOR EACH ROW EXECUTE FUNCTION set_updated_at();

-- Who asked for what over the Model Context Protocol. Names of arguments, never their values.
CREATE TABLE mcp_audit (
    id         uuid        PRIMARY KEY,
    -- Null when nobody was signed in.
    user_id    uuid        REFERENCES users (id) ON DELETE CASCADE,
    method     text        NOT NULL CHECK (length(method) <= 64),
    -- The tool, or the address of the resource.
    target     text        CHECK (length(target) <= 64),
    arguments  text[]      NOT NULL DEFAULT '{}',
    outcome    text        NOT NULL CHECK (outcome IN ('ok', 'refused', 'invalid', 'failed')),
    request_id text        NOT NULL CHECK (length(request_id) <= 64),
    ms         integer     NOT NULL CHECK (ms >= 0),
    created_at timestamptz NOT NULL DEFAULT now()
);
CREATE INDEX mcp_audit_list ON mcp_audit (user_id, id DESC);

-- Serves the operator's log: newest first, ids are ordered by time.
CREATE INDEX app_logs_by_level ON app_logs (level, id DESC);

-- Common foods. Energy in kilocalories and the rest in grams, all per 100 g of the edible part:
-- generic values, rounded, from general nutritional knowledge and of no particular product.
CREATE TABLE foods (
    id       integer       PRIMARY KEY GENERATED ALWAYS AS IDENTITY,
    name     text          NOT NULL UNIQUE CHECK (length(name) BETWEEN 1 AND 100),
    calories numeric(6, 2) NOT NULL CHECK (calories BETWEEN 0 AND 900),
    protein  numeric(5, 2) NOT NULL CHECK (protein BETWEEN 0 AND 100),
    carbs    numeric(5, 2) NOT NULL CHECK (carbs BETWEEN 0 AND 100),
    fats     numeric(5, 2) NOT NULL CHECK (fats BETWEEN 0 AND 100)
);

INSERT INTO foods (name, calories, protein, carbs, fats) VALUES
    ('Almonds', 579, 21, 22, 50),
    ('Apple', 52, 0.3, 14, 0.2),
    ('Apple juice', 46, 0.1, 11, 0.1),
    ('Apricot', 48, 1.4, 11, 0.4),
    ('Asparagus, cooked', 22, 2.4, 4, 0.2),
    ('Aubergine, cooked', 35, 0.8, 9, 0.2),
    ('Avocado', 160, 2, 9, 15),
    ('Bacon, fried', 540, 37, 1.4, 42),
    ('Bagel', 257, 10, 50, 1.6),
    ('Baguette', 270, 9, 55, 1.5),
    ('Banana', 89, 1.1, 23, 0.3),
    ('Basmati rice, cooked', 130, 2.7, 28, 0.3),
    ('Beans, baked, canned', 94, 4.8, 21, 0.4),
    ('Beans, black, cooked', 132, 8.9, 24, 0.5),
    ('Beans, green, cooked', 35, 1.9, 8, 0.3),
    ('Beans, kidney, cooked', 127, 8.7, 23, 0.5),
    ('Beef, ground, cooked', 250, 26, 0, 15),
    ('Beef, steak, grilled', 217, 26, 0, 12),
    ('Beer', 43, 0.5, 3.6, 0),
    ('Beetroot, cooked', 44, 1.7, 10, 0.2),
    ('Blackberries', 43, 1.4, 10, 0.5),
    ('Blueberries', 57, 0.7, 14, 0.3),
    ('Bread, rye', 259, 8.5, 48, 3.3),
    ('Bread, sourdough', 270, 9, 53, 2),
    ('Bread, white', 265, 9, 49, 3.2),
    ('Bread, wholemeal', 247, 13, 41, 3.4),
    ('Broccoli, cooked', 35, 2.4, 7, 0.4),
    ('Brussels sprouts, cooked', 36, 2.6, 7, 0.5),
    ('Bulgur, cooked', 83, 3.1, 19, 0.2),
    ('Butter', 717, 0.9, 0.1, 81),
    ('Buttermilk', 40, 3.3, 4.8, 0.9),
    ('Cabbage', 25, 1.3, 6, 0.1),
    ('Cappuccino', 38, 2.2, 3.5, 1.7),
    ('Carrot', 41, 0.9, 10, 0.2),
    ('Cashews', 553, 18, 30, 44),
    ('Cauliflower, cooked', 23, 1.8, 4, 0.5),
    ('Celery', 16, 0.7, 3, 0.2),
    ('Cheese, Brie', 334, 21, 0.5, 28),
    ('Cheese, Cheddar', 403, 25, 1.3, 33),
    ('Cheese, cottage', 98, 11, 3.4, 4.3),
    ('Cheese, cream', 342, 6, 4, 34),
    ('Cheese, feta', 264, 14, 4, 21),
    ('Cheese, goat', 364, 22, 0.1, 30),
    ('Cheese, Gouda', 356, 25, 2.2, 27),
    ('Cheese, mozzarella', 280, 28, 3, 17),
    ('Cheese, Parmesan', 431, 38, 4, 29),
    ('Cheeseburger', 263, 15, 27, 11),
    ('Cherries', 63, 1.1, 16, 0.2),
    ('Chia seeds', 486, 17, 42, 31),
    ('Chicken breast, cooked', 165, 31, 0, 3.6),
    ('Chicken nuggets', 296, 15, 15, 20),
    ('Chicken thigh, cooked', 209, 26, 0, 11),
    ('Chickpeas, cooked', 164, 8.9, 27, 2.6),
    ('Chocolate, dark', 546, 4.9, 61, 31),
    ('Chocolate, milk', 535, 7.6, 59, 30),
    ('Coconut milk', 230, 2.3, 6, 24),
    ('Cod, cooked', 105, 23, 0, 0.9),
    ('Coffee, black', 1, 0.1, 0, 0),
    ('Cola', 42, 0, 10.6, 0),
    ('Cookies, chocolate chip', 488, 5, 64, 24),
    ('Corn flakes', 357, 8, 84, 0.4),
    ('Couscous, cooked', 112, 3.8, 23, 0.2),
    ('Crab, cooked', 97, 19, 0, 1.5),
    ('Cream, whipping', 340, 2.1, 2.8, 36),
    ('Crispbread', 366, 8, 82, 1.3),
    ('Croissant', 406, 8, 46, 21),
    ('Cucumber', 15, 0.7, 3.6, 0.1),
    ('Dates, dried', 282, 2.5, 75, 0.4),
    ('Doughnut', 452, 4.9, 51, 25),
    ('Duck, roasted', 337, 19, 0, 28),
    ('Egg, boiled', 155, 13, 1.1, 11),
    ('Egg, fried', 196, 14, 0.8, 15),
    ('Egg, scrambled', 149, 10, 1.6, 11),
    ('Egg white', 52, 11, 0.7, 0.2),
    ('Falafel', 333, 13, 32, 18),
    ('Fennel', 31, 1.2, 7, 0.2),
    ('Fig', 74, 0.8, 19, 0.3),
    ('Flaxseed', 534, 18, 29, 42),
    ('French fries', 312, 3.4, 41, 15),
    ('Garlic', 149, 6.4, 33, 0.5),
    ('Granola', 489, 14, 54, 24),
    ('Grapefruit', 42, 0.8, 11, 0.1),
    ('Grapes', 69, 0.7, 18, 0.2),
    ('Ham', 145, 21, 1.5, 6),
    ('Hazelnuts', 628, 15, 17, 61),
    ('Honey', 304, 0.3, 82, 0),
    ('Hummus', 166, 8, 14, 10),
    ('Ice cream, vanilla', 207, 3.5, 24, 11),
    ('Jam', 278, 0.4, 69, 0.1),
    ('Kale', 49, 4.3, 9, 0.9),
    ('Ketchup', 101, 1, 27, 0.1),
    ('Kiwi', 61, 1.1, 15, 0.5),
    ('Lamb, roasted', 258, 25, 0, 17),
    ('Leek, cooked', 31, 0.8, 8, 0.2),
    ('Lemon', 29, 1.1, 9, 0.3),
    ('Lentils, cooked', 116, 9, 20, 0.4),
    ('Lettuce', 15, 1.4, 2.9, 0.2),
    ('Mackerel, cooked', 262, 24, 0, 18),
    ('Mango', 60, 0.8, 15, 0.4),
    ('Margarine', 717, 0.2, 0.7, 81),
    ('Mayonnaise', 680, 1, 0.6, 75),
    ('Melon, cantaloupe', 34, 0.8, 8, 0.2),
    ('Milk, oat', 46, 1, 7, 1.5),
    ('Milk, semi-skimmed', 50, 3.3, 4.8, 2),
    ('Milk, skimmed', 34, 3.4, 5, 0.1),
    ('Milk, soy', 43, 3.3, 3.5, 1.8),
    ('Milk, whole', 61, 3.2, 4.8, 3.3),
    ('Muesli', 363, 10, 66, 6),
    ('Mushrooms', 22, 3.1, 3.3, 0.3),
    ('Oats, rolled', 379, 13, 68, 6.5),
    ('Olive oil', 884, 0, 0, 100),
    ('Olives', 115, 0.8, 6, 11),
    ('Onion', 40, 1.1, 9, 0.1),
    ('Orange', 47, 0.9, 12, 0.1),
    ('Orange juice', 45, 0.7, 10, 0.2),
    ('Pancake', 227, 6, 28, 10),
    ('Pasta, cooked', 158, 5.8, 31, 0.9),
    ('Peach', 39, 0.9, 10, 0.3),
    ('Peanut butter', 588, 25, 20, 50),
    ('Peanuts, roasted', 585, 24, 21, 50),
    ('Pear', 57, 0.4, 15, 0.1),
    ('Peas, cooked', 84, 5.4, 16, 0.2),
    ('Pepper, red', 31, 1, 6, 0.3),
    ('Pineapple', 50, 0.5, 13, 0.1),
    ('Pistachios', 560, 20, 28, 45),
    ('Pizza, Margherita', 266, 11, 33, 10),
    ('Plum', 46, 0.7, 11, 0.3),
    ('Popcorn', 387, 13, 78, 4.5),
    ('Pork chop, cooked', 231, 26, 0, 14),
    ('Porridge', 71, 2.5, 12, 1.5),
    ('Potato, boiled', 87, 1.9, 20, 0.1),
    ('Potato chips', 536, 7, 53, 35),
    ('Prawns, cooked', 99, 24, 0.2, 0.3),
    ('Protein powder, whey', 400, 80, 8, 6),
    ('Pumpkin, cooked', 20, 0.7, 5, 0.1),
    ('Quinoa, cooked', 120, 4.4, 21, 1.9),
    ('Raisins', 299, 3.1, 79, 0.5),
    ('Raspberries', 52, 1.2, 12, 0.7),
    ('Rapeseed oil', 884, 0, 0, 100),
    ('Rice, brown, cooked', 112, 2.3, 24, 0.8),
    ('Rice, white, cooked', 130, 2.7, 28, 0.3),
    ('Rice cake', 387, 8, 82, 2.8),
    ('Salami', 336, 22, 2.4, 26),
    ('Salmon, cooked', 206, 22, 0, 12),
    ('Sardines, canned', 208, 25, 0, 11),
    ('Sausage, pork', 301, 18, 2, 25),
    ('Spinach', 23, 2.9, 3.6, 0.4),
    ('Strawberries', 32, 0.7, 8, 0.3),
    ('Sugar', 387, 0, 100, 0),
    ('Sunflower seeds', 584, 21, 20, 51),
    ('Sushi', 143, 6, 28, 0.7),
    ('Sweet potato, baked', 90, 2, 21, 0.2),
    ('Sweetcorn, cooked', 96, 3.4, 21, 1.5),
    ('Tea', 1, 0, 0.3, 0),
    ('Tofu', 144, 15, 3, 9),
    ('Tomato', 18, 0.9, 3.9, 0.2),
    ('Tortilla, wheat', 304, 8, 50, 8),
    ('Tuna, canned in water', 116, 26, 0, 0.8),
    ('Turkey breast, cooked', 147, 30, 0, 2.1),
    ('Walnuts', 654, 15, 14, 65),
    ('Watermelon', 30, 0.6, 8, 0.2),
    ('Wine, red', 85, 0.1, 2.6, 0),
    ('Wine, white', 82, 0.1, 2.6, 0),
    ('Yoghurt, Greek', 97, 9, 3.9, 5),
    ('Yoghurt, plain', 61, 3.5, 4.7, 3.3),
    ('Zucchini, cooked', 17, 1.1, 3, 0.3);

-- pg_trgm is a trusted extension that comes with PostgreSQL: whoever owns the database may create it.
-- Where it is missing all the same, the search still finds parts of names, only no misspelt ones.
DO $migration$
BEGIN
    BEGIN
        CREATE EXTENSION IF NOT EXISTS pg_trgm;
    EXCEPTION WHEN undefined_file OR insufficient_privilege OR feature_not_supported THEN
        RAISE NOTICE 'pg_trgm cannot be had: foods are searched without it';
    END;
    IF EXISTS (SELECT FROM pg_extension WHERE extname = 'pg_trgm') THEN
        CREATE INDEX foods_name_trigrams ON foods USING gin (name gin_trgm_ops);
        -- What begins with the text first, then what contains it, then what resembles it. With the
        -- default threshold of 0.6 one missing letter would be too much.
        CREATE FUNCTION search_foods(wanted text, pattern text, most integer) RETURNS SETOF foods
        LANGUAGE sql STABLE SET pg_trgm.word_similarity_threshold = 0.4 AS $$
            SELECT * FROM foods
            WHERE name ILIKE '%' || pattern || '%' OR wanted <% name
            ORDER BY name ILIKE pattern || '%' DESC, name ILIKE '%' || pattern || '%' DESC,
                     word_similarity(wanted, name) DESC, similarity(wanted, name) DESC, name
            LIMIT most
        $$;
    ELSE
        CREATE FUNCTION search_foods(wanted text, pattern text, most integer) RETURNS SETOF foods
        LANGUAGE sql STABLE AS $$
            SELECT * FROM foods WHERE name ILIKE '%' || pattern || '%'
            ORDER BY name ILIKE pattern || '%' DESC, name
            LIMIT most
        $$;
    END IF;
END
$migration$;
