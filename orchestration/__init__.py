"""What decides: sessions, plans, engine, agents, reports. Knows rules; knows no SQL text and no Celery."""
