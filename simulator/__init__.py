"""An exchange that keeps the truth: Binance spot, Binance USDⓈ-M futures and Lighter on one port.

The simulator is the oracle of the test suite, so it imports nothing of the other rooms. Everything it
generates is written to a truth ledger (:mod:`simulator.truth`), and every fault it commits is recorded
there with the ids it touched.
"""
