// Every text, whatever part of the console it belongs to.
import { alerts } from "./alerts";
import { cluster } from "./cluster";
import { configuration } from "./configuration";
import { emergency } from "./emergency";
import { general } from "./general";
import { guide } from "./guide";
import { operations } from "./operations";
import { routing } from "./routing";
import { running } from "./running";

export const texts = { ...general, ...configuration, ...routing, ...operations, ...emergency, ...cluster, ...running, ...alerts, ...guide };
