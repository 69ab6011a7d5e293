# The quickstart in a container, on the CPU:
#     docker build -t quintain . && docker run --rm -v "$PWD/runs:/work/runs" quintain
# With a GPU: docker run --rm --gpus all -v "$PWD/runs:/work/runs" quintain run --device cuda
FROM python:3.12-slim

RUN useradd --create-home researcher && mkdir /work && chown researcher /work
COPY . /source
RUN pip install --no-cache-dir '/source[figures]' && rm -r /source

USER researcher
WORKDIR /work
ENTRYPOINT ["quintain"]
CMD ["run"]
