"""Judges manifests by the schemas of several versions of Kubernetes, strictly: a field that is not known is a mistake.

    manifests.py FILE VERSION...

Prints how many objects each version takes, as one JSON object; what is wrong goes to standard error, with exit code 1.
"""

import json
import sys

import kubernetes_validate
import yaml


def main(path, versions):
    with open(path, encoding="utf-8") as manifests:
        objects = [found for found in yaml.safe_load_all(manifests) if found is not None]
    taken, wrong = {}, 0
    for version in versions:
        taken[version] = 0
        for found in objects:
            name = f"{version}: {found['kind']} {found['metadata']['name']}"
            try:
                judged_by = kubernetes_validate.validate(found, version, strict=True)
            except kubernetes_validate.ValidationError as mistake:
                print(f"{name}: {mistake}", file=sys.stderr)
                wrong = 1
                continue
            # An older schema is taken where there is none of this version.
            if judged_by != version:
                print(f"{name}: there is no schema of this version, only of {judged_by}", file=sys.stderr)
                wrong = 1
            taken[version] += 1
    print(json.dumps(taken))
    return wrong


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
