# The server as an image. docker-compose.yml runs it beside PostgreSQL and Valkey; alone it needs BACKEND_API_KEY
# and DATA_ENCRYPTION_KEY, and keeps what it writes, SQLite included, in /data.

# The browser modules of the pages.
FROM node:24-slim AS pages
WORKDIR /build
COPY package.json package-lock.json .npmrc ./
RUN npm ci --omit=dev

FROM python:3.11-slim
WORKDIR /app

# Every package is a wheel, so no compiler is needed; the hashes are those the tests ran with.
COPY requirements.txt ./
RUN python -m pip install --no-cache-dir --disable-pip-version-check --require-hashes --only-binary=:all: \
    -r requirements.txt

COPY --from=pages /build/node_modules ./node_modules
COPY prompts ./prompts
COPY migrations ./migrations
COPY coach_server ./coach_server

# The program belongs to root and runs as somebody who can write in /data only.
RUN python -m compileall -q coach_server migrations \
    && useradd --system --uid 10001 --no-create-home coach \
    && install -d -o coach -m 0700 /data

ENV PYTHONUNBUFFERED=1 \
    APP_ENV=production \
    HOST=0.0.0.0 \
    PORT=8080 \
    DATA_DIR=/data
USER coach
VOLUME ["/data"]
EXPOSE 8080

# Whether the process lives, as a load balancer asks; 503 while it drains counts as no.
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.urlopen('http://127.0.0.1:' + os.environ['PORT'] + '/health', timeout=4)"]

# A process of its own, so that SIGTERM reaches it and it drains.
CMD ["python", "-m", "coach_server"]
