"""Conversations: messages to a session that an agent with tools answers, each model request and tool call a durable
call of its step.
"""
