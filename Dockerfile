# The quickstart in a container, on the CPU:
#     docker build -t quintain . && docker run --rm -v "$PWD/runs:/data/runs" quintain
# With a GPU: docker run --rm --gpus all -v "$PWD/runs:/data/runs" quintain run --device cuda
FROM python:3.12-slim

RUN useradd --create-home researcher && mkdir /data && chown researcher /data
COPY . /source
RUN pip install --no-cache-dir '/source[figures]' && rm -r /source

USER researcher
WORKDIR /data
ENTRYPOINT ["quintain"]
CMD ["run"]
