FROM python:3.13-slim

WORKDIR /src
COPY . .
RUN pip install --no-cache-dir ".[postgres,redis,pdf,flower]" && rm -rf /src

RUN useradd --create-home celeriac && mkdir /data && chown celeriac /data
USER celeriac
WORKDIR /data
VOLUME /data

CMD ["celery", "-A", "celeriac", "worker", "--loglevel=INFO"]
