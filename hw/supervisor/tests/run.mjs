// Runs the supervisor's tests in MicroPython's WebAssembly build, under micropython-lib's own unittest.
//
//   node run.mjs <directory of node modules> <directory with senml> <module>...
//
// Prints what unittest prints, then one line of JSON: the version, and for each module [tests, failures].
import { readFileSync, readdirSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";

const [modules, senml, ...names] = process.argv.slice(2);
const here = dirname(fileURLToPath(import.meta.url));
const place = join(modules, "@micropython", "micropython-webassembly-pyscript", "micropython.mjs");
const { loadMicroPython } = await import(pathToFileURL(place));
const python = await loadMicroPython({ linebuffer: true, stdout: (line) => console.log(line) });

function put(from, to) {
  python.FS.mkdirTree(to);
  for (const name of readdirSync(from).filter((name) => name.endsWith(".py"))) {
    python.FS.writeFile(`${to}/${name}`, readFileSync(join(from, name), "utf8"));
  }
}

put(join(here, "..", "lib"), "/firmware");
put(join(here, "..", "lib", "supervisor"), "/firmware/supervisor");
put(join(senml, "senml"), "/firmware/senml");
put(here, "/firmware");
python.globals.set("names", names.join(" "));
python.runPython(`
import json, sys, unittest
sys.path.insert(0, "/firmware")
results = {}
for name in names.split():
    suite = unittest.TestSuite(name)
    suite._load_module(__import__(name))
    result = unittest.TestRunner().run(suite)
    results[name] = [result.testsRun, result.errorsNum + result.failuresNum]
print(json.dumps({"version": sys.version, "modules": results}))
`);
