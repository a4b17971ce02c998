"""REST answers that only USDⓈ-M knows: open interest, premium index and funding."""

from __future__ import annotations

from collections.abc import Mapping

from simulator.binance_live import LiveBinance
from simulator.binance_live_rest import LiveRest, number
from simulator.binance_rest import Answer, ApiError


class FuturesRest(LiveRest):
    """USDⓈ-M: the common answers and its own."""

    def __init__(self, venue: LiveBinance) -> None:
        super().__init__(venue)
        self.funding_calls: list[int] = []

    async def answer(self, name: str, query: Mapping[str, str]) -> Answer:
        method = {
            "openInterest": self._open_interest,
            "premiumIndex": self._premium_index,
            "fundingRate": self._funding_rate,
            "fundingInfo": self._funding_info,
        }.get(name)
        if method is None:
            return await super().answer(name, query)
        return Answer(method(query).encode(), {})

    def _open_interest(self, query: Mapping[str, str]) -> str:
        listed = self._listed(query)
        text = listed.instrument.quantity_text(listed.open_interest)
        symbol, now = listed.instrument.symbol, self.live.now_ms()
        body = f'{{"symbol":"{symbol}","openInterest":"{text}","time":{now}}}'
        self.live.hub.ledger.event(self.live.key, "openInterest", symbol, now, body.encode())
        return body

    def _premium_index(self, query: Mapping[str, str]) -> str:
        rows = []
        live = self.live
        for listed in self._chosen(query):
            symbol = listed.instrument.symbol
            mark, index, settle = live.derivatives.mark_texts(listed)
            due = live.derivatives.next_funding_ms(symbol, live.now_ms())
            rows.append(
                f'{{"symbol":"{symbol}","markPrice":"{mark}","indexPrice":"{index}","estimatedSettlePrice":"{settle}",'
                f'"lastFundingRate":"{live.derivatives.funding_rate(symbol, due)}","interestRate":"0.00010000",'
                f'"nextFundingTime":{due},"time":{live.now_ms()}}}'
            )
        return rows[0] if "symbol" in query else f"[{','.join(rows)}]"

    def _funding_rate(self, query: Mapping[str, str]) -> str:
        self._funding_budget()
        live = self.live
        limit = min(number(query, "limit", 100) or 100, 1000)
        start, end = number(query, "startTime"), number(query, "endTime") or live.now_ms()
        symbols = [self._listed(query)] if "symbol" in query else list(live.listed.values())
        rows: list[tuple[int, str]] = []
        for listed in symbols:
            symbol = listed.instrument.symbol
            period = live.derivatives.funding_hours(symbol) * 3_600_000
            last = min(end, live.now_ms()) // period * period
            first = max(last - (limit - 1) * period, -(-start // period) * period if start is not None else 0)
            for due in range(first, last + 1, period):
                # The venue stamps funding a few milliseconds after the hour.
                rate, mark = live.derivatives.funding_rate(symbol, due), live.derivatives.funding_mark(listed, due)
                row = (
                    f'{{"symbol":"{symbol}","fundingTime":{due + 2},"fundingRate":"{rate}",'
                    f'"markPrice":"{mark}","rateType":"Regular"}}'
                )
                rows.append((due, row))
        rows.sort(key=lambda row: row[0])
        kept = rows[:limit] if start is not None else rows[-limit:]
        return f"[{','.join(row for _, row in kept)}]"

    def _funding_info(self, query: Mapping[str, str]) -> str:
        """Only symbols whose interval is not 8 hours, as the documentation says."""
        self._funding_budget()
        rows = [
            f'{{"symbol":"{symbol}","adjustedFundingRateCap":"0.02000000","adjustedFundingRateFloor":"-0.02000000",'
            f'"fundingIntervalHours":{self.live.derivatives.funding_hours(symbol)},"disclaimer":false,"updateTime":null}}'
            for symbol in self.live.listed
            if self.live.derivatives.funding_hours(symbol) != 8
        ]
        return f"[{','.join(rows)}]"

    def _funding_budget(self) -> None:
        """500 calls in 5 minutes, shared by the two funding endpoints."""
        now = self.live.now_ms()
        self.funding_calls = [at for at in self.funding_calls if at > now - 300_000]
        self.funding_calls.append(now)
        if len(self.funding_calls) > 500:
            raise ApiError(-1003, "Too many requests; current limit is 500 requests per 5 MINUTE.", 429)
