"""From journaled bytes to Arrow rows: a simple reference, and a compiled scanner that must agree with it bit by bit."""
