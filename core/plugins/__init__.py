"""The kinds of run: finding them, decoding and checking their specs, deriving forms from them."""
