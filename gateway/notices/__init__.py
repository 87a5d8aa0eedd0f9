"""What users and other programs are told of orders, beyond answers: mails and webhooks, by way of a spool."""
