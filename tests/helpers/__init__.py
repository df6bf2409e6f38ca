"""Builders, fakes and checks shared by the tests; nothing here is imported by the application."""
