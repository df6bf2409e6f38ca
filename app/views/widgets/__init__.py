"""Widgets that several pages share; each paints from the theme's tokens."""
