"""Views and macros on top of the channels: what researchers would otherwise write again in each query.

Times are UTC. `imbalance` is (bid - ask) / (bid + ask) of sizes, from -1 (all ask) to 1 (all bid); `spread_percent` is
100 · spread / mid. A crossed or empty side gives null, never a made-up number.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

SCALAR_MACROS: dict[str, str] = {
    "best_bid": "(bid_prices) AS list_max(bid_prices)",
    "best_ask": "(ask_prices) AS list_min(ask_prices)",
    "mid_price": "(bid, ask) AS (bid + ask) / 2",
    "spread": "(bid, ask) AS ask - bid",
    "spread_percent": "(bid, ask) AS 100 * (ask - bid) / nullif((bid + ask) / 2, 0)",
    "imbalance": "(bid_size, ask_size) AS (bid_size - ask_size) / nullif(bid_size + ask_size, 0)",
    "volume": "(sizes, levels := 2147483647) AS list_sum(sizes[1:levels])",
}
"""Scalar macros by name: the text after `CREATE MACRO <name>`. `volume(sizes, levels := 5)` adds the first levels."""

_TOP_OF_BOOK = """
SELECT exchange, received_time, event_time, transaction_time, symbol, instance, update_id,
       bid_price, bid_size, ask_price, ask_size,
       mid_price(bid_price, ask_price) AS mid_price,
       spread(bid_price, ask_price) AS spread,
       spread_percent(bid_price, ask_price) AS spread_percent,
       imbalance(bid_size, ask_size) AS imbalance
FROM book_ticker
"""

_SUMMARY_COLUMNS = """
       best_bid, best_ask, mid_price(best_bid, best_ask) AS mid_price, spread(best_bid, best_ask) AS spread,
       spread_percent(best_bid, best_ask) AS spread_percent, bid_volume, ask_volume,
       imbalance(bid_volume, ask_volume) AS imbalance, bid_levels, ask_levels
"""

_SUMMARY_INNER = """
              best_bid(bid_prices) AS best_bid, best_ask(ask_prices) AS best_ask,
              volume(bid_sizes) AS bid_volume, volume(ask_sizes) AS ask_volume,
              len(bid_prices) AS bid_levels, len(ask_prices) AS ask_levels
"""

_DEPTH_SUMMARY = f"""
SELECT exchange, channel, received_time, event_time, symbol, update_id, {_SUMMARY_COLUMNS}
FROM (
    SELECT exchange, 'depth_partial' AS channel, received_time, event_time, symbol, final_update_id AS update_id,
           {_SUMMARY_INNER}
    FROM depth_partial
    UNION ALL
    SELECT exchange, 'depth_snapshot', received_time, event_time, symbol, last_update_id, {_SUMMARY_INNER}
    FROM depth_snapshot
)
"""

_CONDITIONS = """
WITH judged AS (
    SELECT exchange, channel, symbol, period, bool_and(coalesce(passed, true)) AS passed
    FROM hour_metrics GROUP BY ALL
), periods AS (
    -- What is judged of a file as a whole stands under the symbol '' and is said of each symbol in it.
    SELECT told.exchange, told.channel, told.symbol, told.period, told.events, told.gaps, told.share,
           DATE '1970-01-01' + (epoch(told.period)::BIGINT // 86400)::INTEGER AS day,
           coalesce(own.passed, true) AND coalesce(whole.passed, true) AS passed, whole.passed IS NOT NULL AS is_judged
    FROM coverage told
    LEFT JOIN judged own ON own.exchange = told.exchange AND own.channel = told.channel
        AND own.symbol = told.symbol AND own.period = told.period
    LEFT JOIN judged whole ON whole.exchange = told.exchange AND whole.channel = told.channel
        AND whole.symbol = '' AND whole.period = told.period
), own AS (
    SELECT exchange, channel, symbol, day, count(DISTINCT period) AS periods, sum(events)::BIGINT AS events,
           sum(gaps)::BIGINT AS gaps, avg(share) AS share, bool_and(passed) AS passed, bool_and(is_judged) AS is_judged
    FROM periods GROUP BY ALL
), days AS (
    -- A stream of the whole market (the symbol '') listened for each symbol of its venue, whatever it had of it.
    SELECT market.exchange, market.channel, known.symbol, market.day, market.periods, coalesce(own.events, 0) AS events,
           greatest(market.gaps, coalesce(own.gaps, 0)) AS gaps, market.share,
           market.passed AND coalesce(own.passed, true) AS passed, market.is_judged
    FROM own market
    JOIN (SELECT DISTINCT exchange, symbol FROM own WHERE symbol <> '') known ON known.exchange = market.exchange
    LEFT JOIN own ON own.exchange = market.exchange AND own.channel = market.channel AND own.symbol = known.symbol
        AND own.day = market.day
    WHERE market.symbol = ''
    UNION ALL
    SELECT exchange, channel, symbol, day, periods, events, gaps, share, passed, is_judged
    FROM own ANTI JOIN (SELECT * FROM own WHERE symbol = '') market USING (exchange, channel, day)
), venue AS (
    SELECT exchange, day, max(periods) AS periods FROM days GROUP BY ALL
), span AS (
    SELECT exchange, channel, symbol, min(day) AS first_day FROM days GROUP BY ALL
), calendar AS (
    SELECT exchange, channel, symbol, first_day,
           unnest(generate_series(first_day, (SELECT max(day) FROM days), INTERVAL 1 DAY))::DATE AS day
    FROM span
)
SELECT exchange, channel, symbol, day,
       CASE WHEN day = current_date THEN 'pending'
            WHEN days.periods IS NULL THEN 'missing'
            WHEN NOT passed OR gaps > 0 OR (days.periods < venue.periods AND day > first_day) THEN 'degraded'
            WHEN NOT is_judged THEN 'pending'
            ELSE 'available' END AS condition,
       coalesce(days.periods, 0) AS periods, coalesce(events, 0) AS events, coalesce(gaps, 0) AS gaps, share
FROM calendar
LEFT JOIN days USING (exchange, channel, symbol, day)
LEFT JOIN venue USING (exchange, day)
"""

_BOOK_AT = """(which_exchange, which_symbol, at_time, lookback := INTERVAL 2 HOUR) AS TABLE (
WITH seeds AS (
    SELECT received_time, last_update_id AS id, bid_prices, bid_sizes, ask_prices, ask_sizes
    FROM depth_snapshot
    WHERE exchange = which_exchange AND symbol = which_symbol
      AND received_time >= at_time::TIMESTAMPTZ - lookback AND received_time <= at_time::TIMESTAMPTZ
    UNION ALL
    SELECT received_time, final_update_id, bid_prices, bid_sizes, ask_prices, ask_sizes
    FROM depth_diff
    WHERE is_snapshot AND exchange = which_exchange AND symbol = which_symbol
      AND received_time >= at_time::TIMESTAMPTZ - lookback AND received_time <= at_time::TIMESTAMPTZ
), seed AS MATERIALIZED (
    SELECT * FROM seeds ORDER BY received_time DESC, id DESC LIMIT 1
), changes AS MATERIALIZED (
    -- Read once, for it is asked three times below; the levels stay out of the sort by id.
    SELECT epoch, first_update_id, final_update_id, prev_final_update_id, seed.id AS seed_id, depth_diff.bid_prices,
           depth_diff.bid_sizes, depth_diff.ask_prices, depth_diff.ask_sizes
    FROM depth_diff, seed
    WHERE NOT is_snapshot AND exchange = which_exchange AND symbol = which_symbol
      AND depth_diff.received_time >= at_time::TIMESTAMPTZ - lookback - INTERVAL 1 MINUTE
      AND depth_diff.received_time <= at_time::TIMESTAMPTZ
      AND final_update_id > seed.id
), chained AS (
    SELECT epoch, first_update_id, final_update_id, prev_final_update_id, seed_id,
           lag(final_update_id) OVER (ORDER BY epoch, final_update_id) AS last_id
    FROM changes
), provenance AS (
    -- A chain is whole when each event names the one before (prev_final_update_id), or, where the venue has no such
    -- id, begins right after it. The first one must begin at or before the snapshot's end.
    SELECT count(*) AS diffs_applied,
           coalesce(bool_or(CASE
               WHEN last_id IS NULL THEN coalesce(prev_final_update_id, first_update_id - 1, final_update_id) > seed_id
               WHEN prev_final_update_id IS NULL THEN coalesce(first_update_id <> last_id + 1, true)
               ELSE prev_final_update_id <> last_id END) OR count(DISTINCT epoch) > 1, false) AS gap_crossed
    FROM chained
), levels AS (
    SELECT 'bid' AS side, unnest(bid_prices) AS price, unnest(bid_sizes) AS size, id FROM seed
    UNION ALL SELECT 'ask', unnest(ask_prices), unnest(ask_sizes), id FROM seed
    UNION ALL SELECT 'bid', unnest(bid_prices), unnest(bid_sizes), final_update_id FROM changes
    UNION ALL SELECT 'ask', unnest(ask_prices), unnest(ask_sizes), final_update_id FROM changes
), standing AS MATERIALIZED (
    SELECT side, price, arg_max(size, id) AS size FROM levels GROUP BY ALL HAVING arg_max(size, id) > 0
), counted AS (
    -- One window over both sides takes a fraction of one partitioned by side.
    SELECT *, row_number() OVER (ORDER BY side DESC, CASE side WHEN 'bid' THEN -price ELSE price END)
              - CASE side WHEN 'bid' THEN 0 ELSE (SELECT count(*) FROM standing WHERE side = 'bid') END AS level
    FROM standing
)
SELECT side, level, price, size, seed.received_time AS snapshot_time, seed.id AS snapshot_update_id, diffs_applied,
       gap_crossed
FROM counted, seed, provenance
ORDER BY side DESC, level
)"""

_TOP_OF_BOOK_BETWEEN = """(which_exchange, which_symbol, start_time, end_time) AS TABLE (
SELECT * FROM top_of_book
WHERE exchange = which_exchange AND symbol = which_symbol
  AND received_time >= start_time::TIMESTAMPTZ AND received_time < end_time::TIMESTAMPTZ
ORDER BY received_time, update_id
)"""

TABLE_MACROS: dict[str, str] = {"book_at": _BOOK_AT, "top_of_book": _TOP_OF_BOOK_BETWEEN}
"""Table macros by name. `top_of_book(exchange, symbol, start, end)`: the rows of the view of that name that were
received in [start, end), in order. `book_at(exchange, symbol, time, lookback := INTERVAL 2 HOUR)`: the book's levels
from the newest snapshot received within `lookback` before `time` and every later diff received by then; `gap_crossed`
is true when that chain is broken, so that the levels cannot be trusted. No snapshot gives no rows."""

VIEWS: dict[str, str] = {"top_of_book": _TOP_OF_BOOK, "depth_summary": _DEPTH_SUMMARY, "conditions": _CONDITIONS}
"""Derived views by name: `top_of_book` (each change of the best prices, from book_ticker), `depth_summary` (best prices
and total volumes of each stored partial or whole book) and `conditions` (each symbol's archived days: `available`,
`degraded` by a failed expectation, an unclosed gap or fewer periods than the venue's others, `pending` while the day
runs or where a period was published without being judged, `missing` between days that are there)."""


_VIEWS = {name: f"CREATE VIEW {name} AS {text}" for name, text in VIEWS.items()}

DEFINITIONS: dict[str, str] = {
    **{name: f"CREATE MACRO {name}{text}" for name, text in SCALAR_MACROS.items()},
    **_VIEWS,
    **{
        name: ";".join([*([_VIEWS[name]] if name in _VIEWS else []), f"CREATE MACRO {name}{text}"])
        for name, text in TABLE_MACROS.items()
    },
}
"""What creates each macro and derived view, in an order in which each finds what it needs. A view and a table macro may
bear the same name: DuckDB tells them apart by the parentheses."""

_WORDS = re.compile(r"\w+")
_LOOKS_AROUND = re.compile(r"\b(show|describe|desc|summarize|query|query_table|duckdb_\w+|information_schema|pragma\w*|"
                           r"sqlite_\w+|pg_\w+)\b", re.IGNORECASE)  # fmt: skip


def mentioned(sql: str, tables: Iterable[str]) -> set[str]:
    """The names of tables, views and macros that a database for `sql` must have, with what they are made of.

    All of them when `sql` may look at what there is.
    """
    if _LOOKS_AROUND.search(sql) is not None:
        return set(tables) | DEFINITIONS.keys()
    words = {word.lower() for word in _WORDS.findall(sql)}
    for name, text in reversed(DEFINITIONS.items()):
        if name in words:
            words |= set(_WORDS.findall(text))
    return words & (set(tables) | DEFINITIONS.keys())
